//! Against a small server that speaks the dialect of facts 3.1 and can misbehave.

use super::*;
use axum::Router;
use axum::extract::{Multipart, Request, State};
use axum::response::IntoResponse;
use axum::routing::get;
use futures::StreamExt;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Counting(u8);
impl Entropy for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_add(37);
            *byte = self.0;
        }
    }
}

/// How the server answers a GET or PUT.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Honest,
    Short,
    Long,
    Silent,
    NoMiner,
    Code(u16),
    Forbidden,
}

#[derive(Clone)]
struct Server {
    mood: Arc<Mutex<Mood>>,
    stored: Arc<Mutex<HashMap<(String, String), Bytes>>>,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Server {
    async fn start() -> (Server, String) {
        let server = Server {
            mood: Arc::new(Mutex::new(Mood::Honest)),
            stored: Arc::default(),
            seen: Arc::default(),
        };
        let app = Router::new()
            .route("/fragment", get(read).put(write))
            .route(
                "/status",
                get(|| async { json(200, r#"{"state":"positive","idle_space":12345,"cores":2}"#) }),
            )
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(server.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (server, endpoint)
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    async fn misbehaves(&self) -> Option<axum::response::Response> {
        let mood = *self.mood.lock();
        match mood {
            Mood::Honest | Mood::Short | Mood::Long => None,
            Mood::Silent => std::future::pending().await,
            Mood::NoMiner => Some(axum::response::Html("<html>log in here</html>").into_response()),
            Mood::Code(code) => Some(json(code, "null")),
            Mood::Forbidden => Some((StatusCode::FORBIDDEN, json(403, "null")).into_response()),
        }
    }
}

fn json(code: u16, data: &str) -> axum::response::Response {
    let body = format!(r#"{{"code":{code},"msg":"told\u001b so","data":{data}}}"#);
    ([("content-type", "application/json; charset=utf-8")], body).into_response()
}

fn key_of(headers: &HeaderMap) -> (String, String) {
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    (text("fid"), text("fragment"))
}

async fn write(State(server): State<Server>, headers: HeaderMap, mut form: Multipart) -> axum::response::Response {
    server.seen.lock().push(("PUT".into(), headers.clone()));
    if let Some(answer) = server.misbehaves().await {
        return answer;
    }
    let field = form.next_field().await.unwrap().unwrap();
    assert_eq!(field.name(), Some("file"));
    let bytes = field.bytes().await.unwrap();
    server.stored.lock().insert(key_of(&headers), bytes);
    json(200, "null")
}

async fn read(State(server): State<Server>, request: Request) -> axum::response::Response {
    let headers = request.headers().clone();
    server.seen.lock().push(("GET".into(), headers.clone()));
    if let Some(answer) = server.misbehaves().await {
        return answer;
    }
    let Some(bytes) = server.stored.lock().get(&key_of(&headers)).cloned() else {
        return json(404, "null");
    };
    let (status, mut body) = match headers.get("range").map(|value| value.to_str().unwrap()) {
        None => (StatusCode::OK, bytes.to_vec()),
        Some(text) => {
            let (range, total) = text.strip_prefix("bytes=").unwrap().split_once('/').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            assert_eq!(total, "8388608");
            (
                StatusCode::PARTIAL_CONTENT,
                bytes[start.parse().unwrap()..end.parse().unwrap()].to_vec(),
            )
        }
    };
    match *server.mood.lock() {
        Mood::Short => drop(body.pop()),
        Mood::Long => body.push(0),
        _ => {}
    }
    (status, [("content-type", "application/octet-stream")], body).into_response()
}

const FID: Fid = Fid([0xab; 32]);
const FRAGMENT: Sha256Hash = Sha256Hash([0xcd; 32]);
const WHOLE: Range<u32> = 0..FRAGMENT_BYTES as u32;

fn client() -> HttpFragments {
    HttpFragments::new(&mut Counting(1), Reach::Anywhere).unwrap()
}

/// The body in pieces of odd lengths.
fn pieces() -> FragmentBody {
    let (mut rest, mut pieces) = (body(), Vec::new());
    while !rest.is_empty() {
        pieces.push(Ok(rest.split_to(rest.len().min(777_777))));
    }
    futures::stream::iter(pieces).boxed()
}

fn body() -> Bytes {
    (0..FRAGMENT_BYTES)
        .map(|i| (i * 7 + i / 251) as u8)
        .collect::<Vec<u8>>()
        .into()
}

async fn stored() -> (Server, String, HttpFragments) {
    let (server, endpoint) = Server::start().await;
    let client = client();
    FragmentStore::put(&client, &endpoint, FID, FRAGMENT, pieces())
        .await
        .unwrap();
    (server, endpoint, client)
}

#[tokio::test]
async fn what_is_put_can_be_read_whole_and_in_ranges() {
    let (server, endpoint, client) = stored().await;
    let want = body();
    assert!(server.stored.lock()[&(hex::encode(FID.0), hex::encode(FRAGMENT.0))] == want);
    let slash = format!("{endpoint}/");
    assert!(FragmentStore::get(&client, &slash, FID, FRAGMENT, WHOLE).await.unwrap() == want);
    for range in [0..1, 1000..70_000, FRAGMENT_BYTES as u32 - 5..FRAGMENT_BYTES as u32] {
        let got = FragmentStore::get(&client, &endpoint, FID, FRAGMENT, range.clone())
            .await
            .unwrap();
        assert!(got == want[range.start as usize..range.end as usize]);
    }
    let seen = server.seen.lock();
    assert!(
        !seen[1].1.contains_key("range"),
        "a whole fragment is asked for without a range"
    );
    assert_eq!(seen[3].1["range"], "bytes=1000-70000/8388608");
}

#[tokio::test]
async fn every_request_is_signed_with_the_throw_away_key() {
    let (server, _, _) = stored().await;
    let headers = server.seen.lock()[0].1.clone();
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    assert!(
        (FRAGMENT_BYTES..FRAGMENT_BYTES + 1000).contains(&length),
        "known length, not chunked"
    );
    let account = headers["account"].to_str().unwrap();
    let (account, prefix) = cessfs_crypto::AccountId::from_ss58(account).unwrap();
    assert_eq!(prefix, SS58_PREFIX);
    let mut seed = [0; 32];
    Counting(1).fill(&mut seed);
    assert_eq!(account, AccountKey::from_seed(&seed).account_id());
    let public = schnorrkel::PublicKey::from_bytes(&account.0).unwrap();
    let signature = hex::decode(headers["signature"].to_str().unwrap()).unwrap();
    let signature = schnorrkel::Signature::from_bytes(&signature).unwrap();
    public
        .verify_simple(b"substrate", headers["message"].as_bytes(), &signature)
        .unwrap();
}

#[tokio::test]
async fn errors_have_the_kind_that_the_caller_acts_on() {
    let (server, endpoint, client) = stored().await;
    let get = || FragmentStore::get(&client, &endpoint, FID, FRAGMENT, 0..100);
    let put = || FragmentStore::put(&client, &endpoint, FID, FRAGMENT, pieces());
    server.set(Mood::Code(404));
    assert!(matches!(get().await, Err(MinerError::Missing(_))));
    for code in [400, 403, 416] {
        server.set(Mood::Code(code));
        assert!(matches!(get().await, Err(MinerError::Refused(_))), "{code}");
        assert!(matches!(put().await, Err(MinerError::Refused(_))), "{code}");
    }
    server.set(Mood::Code(500));
    assert!(matches!(get().await, Err(MinerError::Unreachable(_))));
    server.set(Mood::Forbidden);
    assert!(matches!(put().await, Err(MinerError::Refused(text)) if text == "403 told so"));
    assert!(matches!(get().await, Err(MinerError::Refused(_))));
    server.set(Mood::Code(200));
    assert!(matches!(get().await, Err(MinerError::Wrong(_))));
    // A login page in front of all miners says nothing of what they hold.
    server.set(Mood::NoMiner);
    assert!(matches!(get().await, Err(MinerError::Unreachable(_))));
    assert!(matches!(put().await, Err(MinerError::Unreachable(_))));
    let whole = FragmentStore::get(&client, &endpoint, FID, FRAGMENT, WHOLE).await;
    assert!(matches!(whole, Err(MinerError::Unreachable(_))), "{whole:?}");
    for mood in [Mood::Short, Mood::Long] {
        server.set(mood);
        assert!(matches!(get().await, Err(MinerError::Wrong(_))));
    }
    server.set(Mood::Honest);
    assert_eq!(get().await.unwrap().len(), 100);
}

#[tokio::test]
async fn ranges_outside_a_fragment_are_refused_without_asking() {
    let (server, endpoint, client) = stored().await;
    #[expect(clippy::reversed_empty_ranges, reason = "that is the mistake")]
    for range in [5..5, 6..5, 0..FRAGMENT_BYTES as u32 + 1] {
        let got = FragmentStore::get(&client, &endpoint, FID, FRAGMENT, range).await;
        assert!(matches!(got, Err(MinerError::Refused(_))));
    }
    assert_eq!(server.seen.lock().len(), 1, "only the put was sent");
}

#[tokio::test]
async fn a_silent_or_absent_miner_is_unreachable_in_time() {
    let (server, endpoint, mut client) = stored().await;
    client.stall = Duration::from_millis(200);
    server.set(Mood::Silent);
    let start = Instant::now();
    let got = FragmentStore::get(&client, &endpoint, FID, FRAGMENT, WHOLE).await;
    assert!(matches!(got, Err(MinerError::Unreachable(text)) if text.contains("moved")));
    let got = FragmentStore::put(&client, &endpoint, FID, FRAGMENT, pieces()).await;
    assert!(matches!(got, Err(MinerError::Unreachable(_))));
    assert!(start.elapsed() < Duration::from_secs(10));
    let got = FragmentStore::probe(&client, "http://127.0.0.1:1").await;
    assert!(matches!(got, Err(MinerError::Unreachable(text)) if text.contains("refused")));
}

/// Takes one upload at so many bytes each time, through a small buffer, and answers it.
async fn slow_line(bytes: usize, pause: Duration) -> String {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(128 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut piece, mut got) = (vec![0; bytes], 0);
        while got < FRAGMENT_BYTES {
            got += stream.read(&mut piece).await.unwrap();
            tokio::time::sleep(pause).await;
        }
        let body = r#"{"code":200,"msg":"ok","data":null}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        // Dropped with bytes unread, it would be reset.
        let _ = stream.read_to_end(&mut piece).await;
    });
    endpoint
}

#[tokio::test]
async fn what_the_system_has_yet_to_send_is_no_stall() {
    let endpoint = slow_line(64 << 10, Duration::from_millis(30)).await;
    let client = HttpFragments {
        stall: Duration::from_millis(400),
        ..client()
    };
    let start = Instant::now();
    FragmentStore::put(&client, &endpoint, FID, FRAGMENT, pieces())
        .await
        .unwrap();
    assert!(start.elapsed() > client.stall * 3, "the line was fast");
}

#[tokio::test]
async fn probe_tells_state_and_idle_space() {
    let (_, endpoint, client) = stored().await;
    let status = FragmentStore::probe(&client, &endpoint).await.unwrap();
    assert_eq!(
        status,
        MinerStatus {
            state: "positive".into(),
        }
    );
}

#[tokio::test]
async fn an_https_miner_is_spoken_to_over_tls_and_its_certificate_is_checked() {
    let issued = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let body = r#"{"code":200,"msg":"ok","data":{"state":"positive"}}"#;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    let got = FragmentStore::probe(&client(), &endpoint).await;
    assert!(
        matches!(&got, Err(MinerError::Unreachable(text)) if text.contains("certificate")),
        "nobody vouches for it: {got:?}"
    );
    let trusting = HttpFragments {
        client: super::client(Reach::Anywhere)
            .tls_certs_only([reqwest::Certificate::from_der(issued.cert.der()).unwrap()])
            .build()
            .unwrap(),
        ..client()
    };
    let status = FragmentStore::probe(&trusting, &endpoint).await.unwrap();
    assert_eq!(status.state, "positive");
}
