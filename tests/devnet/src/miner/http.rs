//! The miner's routes, in the network's dialect.
//!
//! Every error but one is HTTP 200 with `{code, msg, data}`; only a bad signature is HTTP 403. A body is read to its end
//! even where the answer is known before, because a client that is cut off while it sends never sees the answer.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::multipart::Field;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::limits::{BODY_BYTES_MAX, FRAGMENT_BYTES, PIECES_IN_FLIGHT_MAX, VERSION, ZERO_FRAGMENT};
use super::name::{Fid, FragmentHash};
use super::range;
use super::server::Miner;
use super::store::ReceiveError;

/// The routes of one miner.
pub fn router(miner: Arc<Miner>) -> Router {
    Router::new()
        .route("/fragment", get(get_fragment).put(put_fragment))
        .route("/status", get(status))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(miner.clone(), delay))
        .with_state(miner)
}

/// A JSON answer; its code is not its HTTP status.
struct Reply {
    code: u16,
    msg: String,
    data: Value,
}

impl Reply {
    fn ok(data: Value) -> Reply {
        Reply {
            code: 200,
            msg: "ok".into(),
            data,
        }
    }

    fn error(code: u16, msg: impl Into<String>) -> Reply {
        Reply {
            code,
            msg: msg.into(),
            data: Value::Null,
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let status = if self.code == 403 {
            StatusCode::FORBIDDEN
        } else {
            StatusCode::OK
        };
        (
            status,
            axum::Json(json!({ "code": self.code, "msg": self.msg, "data": self.data })),
        )
            .into_response()
    }
}

async fn delay(State(miner): State<Arc<Miner>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    tokio::time::sleep(miner.delay()).await;
    response
}

fn names(headers: &HeaderMap) -> Result<(Fid, FragmentHash), Reply> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let fid = Fid::parse(text("Fid")).ok_or_else(|| Reply::error(400, "Fid is not 64 hex characters"))?;
    let fragment =
        FragmentHash::parse(text("Fragment")).ok_or_else(|| Reply::error(400, "Fragment is not 64 hex characters"))?;
    Ok((fid, fragment))
}

async fn put_fragment(State(miner): State<Arc<Miner>>, request: Request) -> Reply {
    match admit(&miner, request.headers()) {
        Ok((fid, fragment, true)) => receive(miner, fid, fragment, request).await,
        Ok((fid, fragment, false)) => {
            read_out(request).await;
            if fragment.as_str() != ZERO_FRAGMENT || miner.store.holds(&fid, &fragment) {
                return Reply::ok(Value::Null);
            }
            blocking(move || match miner.store.receive_zeros(&fid, &fragment) {
                Ok(()) => Reply::ok(Value::Null),
                Err(e) => Reply::error(500, e.to_string()),
            })
            .await
        }
        Err(reply) => {
            read_out(request).await;
            reply
        }
    }
}

/// Which fragment is put, and whether its bytes are wanted.
fn admit(miner: &Miner, headers: &HeaderMap) -> Result<(Fid, FragmentHash, bool), Reply> {
    miner
        .gate
        .check(headers)
        .map_err(|e| Reply::error(403, e.to_string()))?;
    let (fid, fragment) = names(headers)?;
    // The file may have been stored and deleted before, so that the reporter looks at it rarely.
    miner.settled.lock().remove(&fid);
    if fragment.as_str() == ZERO_FRAGMENT || miner.store.holds(&fid, &fragment) {
        return Ok((fid, fragment, false));
    }
    if miner.deals.live(&fid).is_some_and(|live| live.lists(&fragment)) {
        Ok((fid, fragment, true))
    } else {
        Err(Reply::error(400, "fragment is not in a live deal"))
    }
}

async fn receive(miner: Arc<Miner>, fid: Fid, fragment: FragmentHash, request: Request) -> Reply {
    let form_data = |kind: &HeaderValue| kind.as_bytes().starts_with(b"multipart/form-data");
    if !request.headers().get(header::CONTENT_TYPE).is_some_and(form_data) {
        read_out(request).await;
        return Reply::error(400, "the body is not a multipart form");
    }
    let mut form = match Multipart::from_request(request, &()).await {
        Ok(form) => form,
        Err(e) => return Reply::error(400, e.body_text()),
    };
    loop {
        match form.next_field().await {
            Ok(Some(field)) if field.name() == Some("file") => {
                let reply = receive_file(miner, fid, fragment, field).await;
                while let Ok(Some(rest)) = form.next_field().await {
                    read_field_out(rest).await;
                }
                return reply;
            }
            Ok(Some(other)) => read_field_out(other).await,
            Ok(None) => return Reply::error(400, "no form field `file`"),
            Err(e) => return Reply::error(400, e.body_text()),
        }
    }
}

/// Passes the field's bytes on to a thread that may wait for the disk, as they come.
async fn receive_file(miner: Arc<Miner>, fid: Fid, fragment: FragmentHash, mut field: Field<'_>) -> Reply {
    let (pieces, mut received) = mpsc::channel(PIECES_IN_FLIGHT_MAX);
    let disk = tokio::task::spawn_blocking(move || miner.store.receive(&fid, &fragment, &mut received));
    let mut broken = None;
    loop {
        match field.chunk().await {
            // The disk gave up where nobody receives; its error says why, and the rest is read for the client's sake.
            Ok(Some(piece)) => drop(pieces.send(piece).await),
            Ok(None) => break,
            Err(e) => {
                broken = Some(e.body_text());
                break;
            }
        }
    }
    drop(pieces);
    match (disk.await, broken) {
        (_, Some(text)) => Reply::error(400, text),
        (Ok(Ok(())), None) => Reply::ok(Value::Null),
        (Ok(Err(e @ (ReceiveError::Size(_) | ReceiveError::Hash(_)))), None) => Reply::error(400, e.to_string()),
        (Ok(Err(e @ ReceiveError::Disk(_))), None) => Reply::error(500, e.to_string()),
        (Err(e), None) => Reply::error(500, e.to_string()),
    }
}

/// Reads a body that nobody wants, up to the limit of one.
async fn read_out(request: Request) {
    let mut body = request.into_body();
    let mut size = 0;
    while size < BODY_BYTES_MAX {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let Some(Ok(frame)) = frame else { return };
        size += frame.data_ref().map_or(0, |piece| piece.len());
    }
}

async fn read_field_out(mut field: Field<'_>) {
    while let Ok(Some(_)) = field.chunk().await {}
}

async fn get_fragment(State(miner): State<Arc<Miner>>, headers: HeaderMap) -> Response {
    if let Err(e) = miner.gate.check(&headers) {
        return Reply::error(403, e.to_string()).into_response();
    }
    let (fid, fragment) = match names(&headers) {
        Ok(names) => names,
        Err(reply) => return reply.into_response(),
    };
    let range = match headers.get(header::RANGE) {
        None => None,
        Some(text) => match text.to_str().ok().and_then(|text| range::parse(text, FRAGMENT_BYTES)) {
            Some(range) => Some(range),
            None if miner.store.holds(&fid, &fragment) => {
                return Reply::error(416, "range must be bytes=START-END/TOTAL").into_response();
            }
            None => return Reply::error(404, "no such fragment").into_response(),
        },
    };
    let status = if range.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let range = range.unwrap_or(0..FRAGMENT_BYTES);
    blocking(move || match miner.store.read(&fid, &fragment, range) {
        Ok(Some(bytes)) => (
            status,
            [(header::CONTENT_TYPE, "application/octet-stream")],
            Body::from(bytes),
        )
            .into_response(),
        Ok(None) => Reply::error(404, "no such fragment").into_response(),
        Err(e) => Reply::error(500, e.to_string()).into_response(),
    })
    .await
}

/// Runs what waits for the disk on a thread of its own; should it panic, that is an answer too.
async fn blocking<T: IntoResponse + Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T
where
    Reply: Into<T>,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Reply::error(500, e.to_string()).into())
}

impl From<Reply> for Response {
    fn from(reply: Reply) -> Response {
        reply.into_response()
    }
}

async fn status(State(miner): State<Arc<Miner>>) -> Reply {
    let service_space = miner.store.count() * FRAGMENT_BYTES;
    let account = &miner.spec.account_ss58;
    Reply::ok(json!({
        "pid": std::process::id(),
        "version": VERSION,
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "endpoint": format!("http://127.0.0.1:{}", miner.spec.endpoint_port),
        "current_rpc": "in this process",
        "current_rpc_status": true,
        "state": "positive",
        "signature_acc": account,
        "staking_acc": account,
        "earnings_acc": account,
        "declaration_space": 0,
        "idle_space": 0,
        "service_space": service_space,
        "lock_space": 0,
        "idle_challenge": false,
        "service_challenge": false,
    }))
}
