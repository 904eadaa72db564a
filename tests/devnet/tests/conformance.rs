//! The runtime's interface against that of CESS's spec 137, item by item, types resolved to the ground.
//!
//! The real interface is `metadata-137.scale` in the directory `shared` beside the repository, or wherever
//! `CESSFS_SHARED` says. Without it there is nothing to compare with: the test says so and passes.

use cessfs_devnet_runtime::Runtime;
use codec::Decode;
use frame_metadata::{
    RuntimeMetadata, RuntimeMetadataPrefixed,
    v15::{PalletMetadata, RuntimeMetadataV15, StorageEntryType},
};
use scale_info::{Field, TypeDef, Variant, form::PortableForm};
use std::{collections::HashSet, fmt::Write as _, path::PathBuf};

/// Pallets that are CESS's own: all we have must be as theirs, and events and errors complete.
const CESS: [&str; 5] = ["FileBank", "Sminer", "StorageHandler", "Oss", "TxPause"];
/// Generated unions over all pallets, which differ because we have fewer.
const UNIONS: [&str; 5] = [
    "RuntimeCall",
    "RuntimeEvent",
    "RuntimeError",
    "RuntimeHoldReason",
    "RuntimeFreezeReason",
];

type Side = RuntimeMetadataV15;
type Verdict = Result<(), String>;

fn decode(bytes: &[u8]) -> Side {
    match RuntimeMetadataPrefixed::decode(&mut &bytes[..]).unwrap().1 {
        RuntimeMetadata::V15(metadata) => metadata,
        other => panic!("metadata V{}", other.version()),
    }
}

fn ours() -> Side {
    decode(&Runtime::metadata_at_version(15).unwrap())
}

fn theirs() -> Option<Side> {
    // Like in the client's own tests: a directory given, or the one beside the repository.
    let shared = std::env::var_os("CESSFS_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let path = shared.join("cess/metadata-137.scale");
    match std::fs::read(&path) {
        Ok(bytes) => Some(decode(&bytes)),
        Err(e) => {
            println!("SKIPPED: {} can't be read: {e}", path.display());
            None
        }
    }
}

fn pallet<'a>(side: &'a Side, name: &str) -> &'a PalletMetadata<PortableForm> {
    side.pallets
        .iter()
        .find(|p| p.name == name)
        .unwrap_or_else(|| panic!("no pallet {name}"))
}

fn variants(side: &Side, ty: u32) -> &[Variant<PortableForm>] {
    match &side.types.resolve(ty).unwrap().type_def {
        TypeDef::Variant(union) => &union.variants,
        other => panic!("not an enum: {other:?}"),
    }
}

/// Compares types of two sides, remembering the pairs under comparison so that recursion ends.
struct Comparison<'a> {
    a: &'a Side,
    b: &'a Side,
    seen: HashSet<(u32, u32)>,
}

impl<'a> Comparison<'a> {
    fn new(a: &'a Side, b: &'a Side) -> Self {
        Self {
            a,
            b,
            seen: HashSet::new(),
        }
    }

    fn types(&mut self, a: u32, b: u32) -> Verdict {
        if !self.seen.insert((a, b)) {
            return Ok(());
        }
        let (left, right) = (self.a.types.resolve(a).unwrap(), self.b.types.resolve(b).unwrap());
        let (name, other) = (left.path.segments.last(), right.path.segments.last());
        if name != other {
            return Err(format!("type {name:?} vs {other:?}"));
        }
        if name.is_some_and(|name| UNIONS.contains(&name.as_str())) {
            return Ok(());
        }
        let outcome = match (&left.type_def, &right.type_def) {
            (TypeDef::Composite(x), TypeDef::Composite(y)) => self.fields(&x.fields, &y.fields),
            (TypeDef::Variant(x), TypeDef::Variant(y)) => self.unions(&x.variants, &y.variants),
            (TypeDef::Sequence(x), TypeDef::Sequence(y)) => self.types(x.type_param.id, y.type_param.id),
            (TypeDef::Array(x), TypeDef::Array(y)) if x.len == y.len => self.types(x.type_param.id, y.type_param.id),
            (TypeDef::Compact(x), TypeDef::Compact(y)) => self.types(x.type_param.id, y.type_param.id),
            (TypeDef::Primitive(x), TypeDef::Primitive(y)) if x == y => Ok(()),
            (TypeDef::Tuple(x), TypeDef::Tuple(y)) if x.fields.len() == y.fields.len() => x
                .fields
                .iter()
                .zip(&y.fields)
                .try_for_each(|(x, y)| self.types(x.id, y.id)),
            (x, y) => Err(format!("{x:?} vs {y:?}")),
        };
        outcome.map_err(|e| format!("{}: {e}", name.map_or("", String::as_str)))
    }

    fn fields(&mut self, a: &[Field<PortableForm>], b: &[Field<PortableForm>]) -> Verdict {
        if a.len() != b.len() {
            return Err(format!("{} fields vs {}", a.len(), b.len()));
        }
        a.iter().zip(b).try_for_each(|(a, b)| {
            if a.name != b.name {
                return Err(format!("field {:?} vs {:?}", a.name, b.name));
            }
            self.types(a.ty.id, b.ty.id)
                .map_err(|e| format!("{}: {e}", a.name.clone().unwrap_or_default()))
        })
    }

    fn variant(&mut self, a: &Variant<PortableForm>, b: &[Variant<PortableForm>]) -> Verdict {
        let b = b
            .iter()
            .find(|b| b.name == a.name)
            .ok_or_else(|| format!("{} is not there", a.name))?;
        if a.index != b.index {
            return Err(format!("{}: index {} vs {}", a.name, a.index, b.index));
        }
        self.fields(&a.fields, &b.fields)
            .map_err(|e| format!("{}: {e}", a.name))
    }

    fn unions(&mut self, a: &[Variant<PortableForm>], b: &[Variant<PortableForm>]) -> Verdict {
        if a.len() != b.len() {
            return Err(format!("{} variants vs {}", a.len(), b.len()));
        }
        a.iter().try_for_each(|variant| self.variant(variant, b))
    }

    fn storage(&mut self, pallet_name: &str, entry_name: &str) -> Verdict {
        let find = |side: &'a Side| {
            let storage = pallet(side, pallet_name).storage.as_ref()?;
            let entry = storage.entries.iter().find(|e| e.name == entry_name)?;
            Some((storage.prefix.clone(), entry.clone()))
        };
        let (prefix, ours) = find(self.a).ok_or("we lack it")?;
        let (their_prefix, theirs) = find(self.b).ok_or("they lack it")?;
        if (prefix, &ours.modifier, &ours.default) != (their_prefix, &theirs.modifier, &theirs.default) {
            return Err("prefix, modifier or default differ".into());
        }
        match (&ours.ty, &theirs.ty) {
            (StorageEntryType::Plain(x), StorageEntryType::Plain(y)) => self.types(x.id, y.id),
            (
                StorageEntryType::Map { hashers, key, value },
                StorageEntryType::Map {
                    hashers: their_hashers,
                    key: their_key,
                    value: their_value,
                },
            ) if hashers == their_hashers => {
                self.types(key.id, their_key.id)?;
                self.types(value.id, their_value.id)
            }
            _ => Err("the shapes of the maps differ".into()),
        }
    }

    fn constant(&mut self, pallet_name: &str, name: &str) -> Verdict {
        let find = |side: &'a Side| pallet(side, pallet_name).constants.iter().find(|c| c.name == name);
        let ours = find(self.a).ok_or("we lack it")?;
        let theirs = find(self.b).ok_or("they lack it")?;
        if ours.value != theirs.value {
            return Err(format!("{:?} vs {:?}", ours.value, theirs.value));
        }
        self.types(ours.ty.id, theirs.ty.id)
    }
}

/// Collects every difference, so that one run shows them all.
#[derive(Default)]
struct Report {
    text: String,
    checked: usize,
}

impl Report {
    fn note(&mut self, what: String, verdict: Verdict) {
        self.checked += 1;
        if let Err(e) = verdict {
            writeln!(self.text, "  {what}: {e}").unwrap();
        }
    }

    fn finish(self, at_least: usize) {
        assert!(self.text.is_empty(), "differences from spec 137:\n{}", self.text);
        assert!(self.checked >= at_least, "only {} items were compared", self.checked);
        eprintln!("{} items are as in spec 137", self.checked);
    }
}

#[test]
fn cess_pallets_are_those_of_spec_137() {
    let Some(theirs) = theirs() else { return };
    let ours = ours();
    let mut comparison = Comparison::new(&ours, &theirs);
    let mut report = Report::default();
    for name in CESS {
        let (mine, real) = (pallet(&ours, name), pallet(&theirs, name));
        assert_eq!(mine.index, real.index, "{name}");
        for call in variants(&ours, mine.calls.as_ref().unwrap().ty.id) {
            let verdict = comparison.variant(call, variants(&theirs, real.calls.as_ref().unwrap().ty.id));
            report.note(format!("call {name}.{}", call.name), verdict);
        }
        let events = |side, pallet: &PalletMetadata<PortableForm>| variants(side, pallet.event.as_ref().unwrap().ty.id);
        let verdict = comparison.unions(events(&ours, mine), events(&theirs, real));
        report.note(format!("events of {name}"), verdict);
        let errors = |side, pallet: &PalletMetadata<PortableForm>| variants(side, pallet.error.as_ref().unwrap().ty.id);
        let verdict = comparison.unions(errors(&ours, mine), errors(&theirs, real));
        report.note(format!("errors of {name}"), verdict);
        for entry in &mine.storage.as_ref().unwrap().entries {
            report.note(
                format!("storage {name}.{}", entry.name),
                comparison.storage(name, &entry.name),
            );
        }
        for constant in &mine.constants {
            report.note(
                format!("constant {name}.{}", constant.name),
                comparison.constant(name, &constant.name),
            );
        }
    }
    report.finish(70);
}

#[test]
fn the_frame_around_them_is_the_real_one_where_clients_look() {
    let Some(theirs) = theirs() else { return };
    let ours = ours();
    let mut comparison = Comparison::new(&ours, &theirs);
    let mut report = Report::default();
    for (name, call) in [
        ("System", "remark"),
        ("Balances", "transfer_allow_death"),
        ("Balances", "transfer_keep_alive"),
        ("Balances", "transfer_all"),
        ("Timestamp", "set"),
    ] {
        let calls = |side| variants(side, pallet(side, name).calls.as_ref().unwrap().ty.id);
        let mine = calls(&ours).iter().find(|c| c.name == call).unwrap();
        report.note(format!("call {name}.{call}"), comparison.variant(mine, calls(&theirs)));
    }
    for (name, event) in [
        ("System", "ExtrinsicSuccess"),
        ("Balances", "Transfer"),
        ("TransactionPayment", "TransactionFeePaid"),
    ] {
        let events = |side| variants(side, pallet(side, name).event.as_ref().unwrap().ty.id);
        let mine = events(&ours).iter().find(|e| e.name == event).unwrap();
        report.note(
            format!("event {name}.{event}"),
            comparison.variant(mine, events(&theirs)),
        );
    }
    for (name, entry) in [
        ("System", "Account"),
        ("System", "Number"),
        ("System", "BlockHash"),
        ("System", "Events"),
        ("Timestamp", "Now"),
        ("Balances", "TotalIssuance"),
        ("TransactionPayment", "NextFeeMultiplier"),
    ] {
        report.note(format!("storage {name}.{entry}"), comparison.storage(name, entry));
    }
    for (name, constant) in [
        ("System", "BlockWeights"),
        ("System", "BlockHashCount"),
        ("System", "DbWeight"),
        ("System", "SS58Prefix"),
        ("Balances", "ExistentialDeposit"),
        ("TransactionPayment", "OperationalFeeMultiplier"),
    ] {
        report.note(
            format!("constant {name}.{constant}"),
            comparison.constant(name, constant),
        );
    }
    report.finish(21);
}

#[test]
fn a_failed_dispatch_names_its_error_as_on_the_network() {
    let Some(theirs) = theirs() else { return };
    let ours = ours();
    let module = |side: &Side| {
        let failed = variants(side, pallet(side, "System").event.as_ref().unwrap().ty.id);
        let failed = failed.iter().find(|e| e.name == "ExtrinsicFailed").unwrap();
        let error = variants(side, failed.fields[0].ty.id);
        (failed.index, error.iter().find(|v| v.name == "Module").unwrap().clone())
    };
    let ((index, mine), (real_index, real)) = (module(&ours), module(&theirs));
    assert_eq!(index, real_index);
    Comparison::new(&ours, &theirs).variant(&mine, &[real]).unwrap();
}

#[test]
fn transactions_are_signed_over_the_same_bytes() {
    let Some(theirs) = theirs() else { return };
    let ours = ours();
    let (mine, real) = (&ours.extrinsic, &theirs.extrinsic);
    assert_eq!(mine.version, real.version);
    let mut comparison = Comparison::new(&ours, &theirs);
    comparison.types(mine.address_ty.id, real.address_ty.id).unwrap();
    // A newer framework knows one more scheme; those the network has must be where they are there.
    for scheme in variants(&theirs, real.signature_ty.id) {
        let ours_has = variants(&ours, mine.signature_ty.id);
        Comparison::new(&theirs, &ours).variant(scheme, ours_has).unwrap();
    }
    let names = |side: &Side| {
        side.extrinsic
            .signed_extensions
            .iter()
            .map(|e| e.identifier.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&ours), names(&theirs));
    for (mine, real) in mine.signed_extensions.iter().zip(&real.signed_extensions) {
        comparison.types(mine.ty.id, real.ty.id).unwrap();
        comparison
            .types(mine.additional_signed.id, real.additional_signed.id)
            .unwrap();
    }
}

#[test]
fn the_comparison_sees_differences() {
    let ours = ours();
    let field = |entry: &str| {
        let storage = pallet(&ours, "FileBank").storage.as_ref().unwrap();
        match &storage.entries.iter().find(|e| e.name == entry).unwrap().ty {
            StorageEntryType::Map { value, .. } => value.id,
            StorageEntryType::Plain(ty) => ty.id,
        }
    };
    let mut comparison = Comparison::new(&ours, &ours);
    assert!(comparison.types(field("File"), field("File")).is_ok());
    assert!(comparison.types(field("File"), field("DealMap")).is_err());
    let mut changed = ours.clone();
    let count = changed.pallets.iter_mut().find(|p| p.name == "FileBank").unwrap();
    count
        .constants
        .iter_mut()
        .find(|c| c.name == "SegmentCount")
        .unwrap()
        .value[0] ^= 1;
    assert!(
        Comparison::new(&ours, &changed)
            .constant("FileBank", "SegmentCount")
            .is_err()
    );
    assert!(
        Comparison::new(&ours, &changed)
            .constant("FileBank", "FragmentCount")
            .is_ok()
    );
}
