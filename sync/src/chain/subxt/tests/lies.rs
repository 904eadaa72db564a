//! What a node that lies about the chain's types, or speaks to the terminal, must not get.

use super::{TERMS, metadata_bytes, offline};
use crate::chain::ChainError;
use crate::chain::subxt::fault::shown;
use crate::chain::subxt::payload::signable;
use crate::chain::subxt::{bounds, calls, shape};
use crate::limits::CHAIN_TEXT_CHARS_MAX;
use subxt::metadata::Metadata;

/// What a node does that wants another call signed than the one that is meant.
#[test]
fn a_call_that_the_node_turns_into_another_is_not_signed() {
    let Some(bytes) = metadata_bytes() else { return };
    // Each is a variant's name, the fields of both calls being of the same types, and then its index.
    let place = |name: &str| {
        let text = [vec![(name.len() as u8) << 2], name.as_bytes().to_vec()].concat();
        let mut found = (0..bytes.len() - text.len()).filter(|&i| bytes[i..].starts_with(&text));
        let at = found.next().expect("the call is there") + text.len();
        assert_eq!(found.next(), None, "{name} is there once");
        at
    };
    let (expand, renew) = (place("expanding_territory"), place("renewal_territory"));
    // The type of the last field, `u32`, with no docs; the variant's index.
    let index = |from: usize, number: u8| {
        let text = [b"\x0cu32\0", &[number][..]].concat();
        let found = (from..from + 200).find(|&i| bytes[i..].starts_with(&text));
        found.expect("an index follows the fields") + text.len() - 1
    };
    let (expand, renew) = (index(expand, 1), index(renew, 2));
    let mut tampered = bytes.clone();
    tampered.swap(expand, renew);
    let at = offline(&tampered);
    let call = calls::expanding_territory("home", 5);
    assert_eq!(
        at.tx().call_data(&call.payload).unwrap()[..2],
        [107, 2],
        "the node's trick works"
    );
    let refused = signable(&at, &call, TERMS).err().expect("it is not signed").to_string();
    assert!(
        refused.contains("StorageHandler.expanding_territory") && refused.contains("107.2 and not 107.1"),
        "{refused}"
    );
    assert!(refused.contains("nothing was signed") && shape::check_calls(&at).is_err());
    shape::check(&at).expect("what it says about storage can be read");
}

/// Two fields of one type that change places, by their names.
#[test]
fn arguments_that_the_node_turns_around_are_not_signed() {
    let Some(mut bytes) = metadata_bytes() else { return };
    let field = |bytes: &[u8], name: &str, from: usize| {
        let text = [vec![(name.len() as u8) << 2], name.as_bytes().to_vec()].concat();
        (from..bytes.len() - text.len())
            .find(|&i| bytes[i..].starts_with(&text))
            .expect("it is there")
    };
    let mint = field(&bytes, "mint_territory", 0);
    let (gib, days) = (field(&bytes, "gib_count", mint), field(&bytes, "days", mint));
    let swapped = [
        &bytes[..gib],
        b"\x10days",
        &bytes[gib + 10..days],
        b"\x24gib_count",
        &bytes[days + 5..],
    ]
    .concat();
    bytes = swapped;
    let at = offline(&bytes);
    let refused = signable(&at, &calls::mint_territory("home", 5, 30), TERMS)
        .err()
        .expect("it is not signed");
    assert!(
        refused.to_string().contains("(its arguments): nothing was signed"),
        "{refused}"
    );
}

/// The tip stands where the nonce stood, and what the node says is the nonce is paid to the block's author.
#[test]
fn extensions_that_the_node_turns_around_are_not_signed() {
    let Some(bytes) = metadata_bytes() else { return };
    let swap = |name: &[u8], with: &[u8], bytes: &[u8]| -> Vec<u8> {
        let found = (0..bytes.len() - name.len())
            .rfind(|&i| bytes[i..].starts_with(name))
            .expect("it is there");
        [&bytes[..found], with, &bytes[found + name.len()..]].concat()
    };
    let tampered = swap(b"\x28CheckNonce", b"\x10Nope", &bytes);
    let tampered = swap(b"\x60ChargeTransactionPayment", b"\x28CheckNonce", &tampered);
    let tampered = swap(b"\x10Nope", b"\x60ChargeTransactionPayment", &tampered);
    let refused = signable(&offline(&tampered), &calls::renewal_territory("home", 30), TERMS).err();
    let refused = refused.expect("it is not signed").to_string();
    assert!(refused.contains("its extensions"), "{refused}");
}

/// The types that a node makes up must not keep us busy.
#[test]
fn a_type_that_contains_itself_is_refused_before_it_is_used() {
    let Some(bytes) = metadata_bytes() else { return };
    let mut metadata = Metadata::decode_from(&bytes).unwrap();
    bounds::check_reads(&metadata).unwrap();
    let id = shape::value_type(&metadata, "StorageHandler", "Territory").unwrap();
    let scale_info::TypeDef::Composite(composite) = &mut metadata.types_mut().types[id as usize].ty.type_def else {
        panic!("a struct");
    };
    composite.fields.truncate(1);
    composite.fields[0].ty = id.into();
    bounds::check_calls(&metadata).unwrap();
    let error = bounds::check_reads(&metadata).unwrap_err().to_string();
    assert!(
        error.contains("storage StorageHandler.Territory has a type that contains itself"),
        "{error}"
    );
}

#[test]
fn what_the_node_says_is_told_without_what_moves_a_terminal() {
    let long = format!("\u{1b}]0;title\u{7}{}", "x".repeat(10_000));
    let ChainError::Refused(text) = shown(ChainError::Refused(long)) else {
        panic!("the kind stays")
    };
    assert!(!text.contains(char::is_control) && text.len() <= CHAIN_TEXT_CHARS_MAX);
}
