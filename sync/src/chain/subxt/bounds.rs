//! Whether the types that a node describes can be decoded by at all.
//!
//! Values are decoded by types that the node made up. One that contains itself, or is a list of what takes no byte, would keep
//! the decoder busy for ever or use up its stack on an answer of a few bytes. So each type that anything is read by is looked at
//! once, when the metadata arrives: none contains itself, nesting and unfolded size are bounded, and every element of a list
//! takes a byte, so that the work is bounded by the bytes of the answer.

use super::shape;
use crate::chain::ChainError;
use crate::limits::{CHAIN_TYPE_DEPTH_MAX, CHAIN_TYPE_PARTS_MAX};
use scale_info::{PortableRegistry, TypeDef};
use std::collections::HashMap;
use subxt::metadata::Metadata;

/// What is known of a type whose parts are known.
#[derive(Clone, Copy)]
struct Known {
    /// Types inside each other, itself included.
    depth: usize,
    /// Types that it unfolds to, elements of lists counted once.
    parts: usize,
    /// Whether a value takes a byte at the least.
    takes_bytes: bool,
}

struct Walk<'a> {
    types: &'a PortableRegistry,
    /// `None` while its parts are being looked at.
    known: HashMap<u32, Option<Known>>,
}

/// Refuses metadata by which storage could not be read within bounds.
pub(super) fn check_reads(metadata: &Metadata) -> Result<(), ChainError> {
    check(metadata, &read_by(metadata))
}

/// Refuses metadata by which transactions could not be encoded, or their events decoded, within bounds.
pub(super) fn check_calls(metadata: &Metadata) -> Result<(), ChainError> {
    check(metadata, &called_by(metadata))
}

fn check(metadata: &Metadata, roots: &[(String, u32)]) -> Result<(), ChainError> {
    let mut walk = Walk {
        types: metadata.types(),
        known: HashMap::new(),
    };
    for (what, id) in roots {
        let looked = walk.look(*id, 0);
        looked.map_err(|why| ChainError::Shape(format!("{what} has a type that {why}")))?;
    }
    Ok(())
}

/// The types of keys and values of a storage item, if it is there.
fn storage(metadata: &Metadata, pallet: &str, item: &str) -> impl Iterator<Item = (String, u32)> {
    let pallet_found = metadata.pallet_by_name(pallet);
    let entry = pallet_found.and_then(|pallet| pallet.storage()?.entry_by_name(item));
    let ids = entry.map(|entry| entry.keys().map(|key| key.key_id).chain([entry.value_ty()]).collect());
    let name = format!("storage {pallet}.{item}");
    let ids: Vec<u32> = ids.unwrap_or_default();
    ids.into_iter().map(move |id| (name.clone(), id))
}

fn read_by(metadata: &Metadata) -> Vec<(String, u32)> {
    let stored = shape::stored().flat_map(|(pallet, item)| storage(metadata, pallet, item));
    let constants = shape::CONSTANTS.iter().filter_map(|(pallet, name)| {
        let constant = metadata.pallet_by_name(pallet)?.constant_by_name(name)?;
        Some((format!("constant {pallet}.{name}"), constant.ty()))
    });
    stored.chain(constants).collect()
}

fn called_by(metadata: &Metadata) -> Vec<(String, u32)> {
    let mut roots: Vec<(String, u32)> = storage(metadata, "System", "Events").collect();
    for (pallet, name) in shape::CALLS {
        let call = metadata
            .pallet_by_name(pallet)
            .and_then(|pallet| pallet.call_variant_by_name(name));
        let ids = call.into_iter().flat_map(|call| &call.fields).map(|field| field.ty.id);
        roots.extend(ids.map(|id| (format!("call {pallet}.{name}"), id)));
    }
    let extensions = metadata.extrinsic().transaction_extensions_by_version(0);
    for extension in extensions.into_iter().flatten() {
        let ids = [extension.extra_ty(), extension.additional_ty()];
        roots.extend(ids.map(|id| ("an extension of transactions".to_owned(), id)));
    }
    let error = metadata.dispatch_error_ty();
    roots.extend(error.map(|id| ("DispatchError".to_owned(), id)));
    roots
}

impl Walk<'_> {
    /// Looks at a type that is inside of `above` others.
    fn look(&mut self, id: u32, above: usize) -> Result<Known, &'static str> {
        match self.known.get(&id) {
            Some(None) => return Err("contains itself"),
            Some(Some(known)) if above + known.depth > CHAIN_TYPE_DEPTH_MAX => return Err("is nested too deeply"),
            Some(Some(known)) => return Ok(*known),
            None if above >= CHAIN_TYPE_DEPTH_MAX => return Err("is nested too deeply"),
            None => {}
        }
        self.known.insert(id, None);
        let types = self.types;
        let def = &types.resolve(id).ok_or("is not described")?.type_def;
        let inside = above + 1;
        let known = match def {
            TypeDef::Composite(composite) => self.all(composite.fields.iter().map(|field| field.ty.id), inside)?,
            TypeDef::Tuple(tuple) => self.all(tuple.fields.iter().map(|field| field.id), inside)?,
            TypeDef::Variant(variant) => {
                let mut known = Known::leaf();
                for variant in &variant.variants {
                    let fields = self.all(variant.fields.iter().map(|field| field.ty.id), inside)?;
                    known.depth = known.depth.max(fields.depth);
                    known.parts = known.parts.max(fields.parts);
                }
                known
            }
            TypeDef::Sequence(list) => self.list(list.type_param.id, inside, true)?,
            TypeDef::Array(list) => self.list(list.type_param.id, inside, list.len > 0)?,
            TypeDef::Compact(compact) => self.all([compact.type_param.id].into_iter(), inside)?,
            TypeDef::Primitive(_) | TypeDef::BitSequence(_) => Known::leaf(),
        };
        if known.parts > CHAIN_TYPE_PARTS_MAX {
            return Err("is made of too many parts");
        }
        self.known.insert(id, Some(known));
        Ok(known)
    }

    /// What has all of these.
    fn all(&mut self, ids: impl Iterator<Item = u32>, above: usize) -> Result<Known, &'static str> {
        let mut all = Known {
            takes_bytes: false,
            ..Known::leaf()
        };
        for id in ids {
            let part = self.look(id, above)?;
            all.depth = all.depth.max(1 + part.depth);
            all.parts = all.parts.saturating_add(part.parts);
            all.takes_bytes |= part.takes_bytes;
        }
        Ok(all)
    }

    fn list(&mut self, element: u32, above: usize, takes_bytes: bool) -> Result<Known, &'static str> {
        let element = self.look(element, above)?;
        if !element.takes_bytes {
            return Err("lists what takes no byte");
        }
        Ok(Known {
            depth: 1 + element.depth,
            parts: element.parts.saturating_add(1),
            takes_bytes,
        })
    }
}

impl Known {
    fn leaf() -> Known {
        Known {
            depth: 1,
            parts: 1,
            takes_bytes: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::{Compact, Decode, Encode};

    /// A registry of types, each given as the bytes of its definition.
    fn registry(definitions: &[Vec<u8>]) -> PortableRegistry {
        let mut bytes = Compact(definitions.len() as u32).encode();
        for (id, definition) in definitions.iter().enumerate() {
            // Id, no path, no parameters, the definition, no docs.
            bytes.extend([Compact(id as u32).encode(), vec![0, 0], definition.clone(), vec![0]].concat());
        }
        PortableRegistry::decode(&mut &bytes[..]).unwrap()
    }

    /// A struct of unnamed fields.
    fn composite(fields: &[u32]) -> Vec<u8> {
        let mut bytes = [vec![0], Compact(fields.len() as u32).encode()].concat();
        for id in fields {
            bytes.extend([vec![0], Compact(*id).encode(), vec![0, 0]].concat());
        }
        bytes
    }
    fn sequence(element: u32) -> Vec<u8> {
        [vec![2], Compact(element).encode()].concat()
    }
    fn array(len: u32, element: u32) -> Vec<u8> {
        [vec![3], len.encode(), Compact(element).encode()].concat()
    }
    fn number() -> Vec<u8> {
        vec![5, 3]
    }

    fn look(definitions: &[Vec<u8>]) -> Result<(), &'static str> {
        let types = registry(definitions);
        let mut walk = Walk {
            types: &types,
            known: HashMap::new(),
        };
        walk.look(0, 0).map(drop)
    }

    #[test]
    fn a_type_that_contains_itself_is_refused() {
        assert_eq!(look(&[composite(&[0])]), Err("contains itself"));
        assert_eq!(look(&[composite(&[1]), sequence(0)]), Err("contains itself"));
        assert_eq!(look(&[composite(&[1, 1]), number()]), Ok(()));
        assert_eq!(look(&[composite(&[7])]), Err("is not described"));
    }

    #[test]
    fn nesting_and_size_have_bounds() {
        let chain = |length: usize| -> Vec<Vec<u8>> {
            let wrappers = (1..length as u32).map(|next| composite(&[next]));
            wrappers.chain([number()]).collect()
        };
        assert_eq!(look(&chain(CHAIN_TYPE_DEPTH_MAX)), Ok(()));
        assert_eq!(look(&chain(CHAIN_TYPE_DEPTH_MAX + 1)), Err("is nested too deeply"));
        // A type that was looked at where it is not deep, and comes again where it is.
        let mut known = vec![composite(&[1, 2])];
        known.extend([composite(&[3]), composite(&[4]), number()]);
        known.extend((5..1 + CHAIN_TYPE_DEPTH_MAX as u32).map(|next| composite(&[next])));
        known.push(composite(&[1]));
        assert_eq!(look(&known), Err("is nested too deeply"));
        // Each four times the next: 4^13 parts in fourteen types.
        let doubling: Vec<Vec<u8>> = (1..14).map(|next| composite(&[next; 4])).chain([number()]).collect();
        assert_eq!(look(&doubling), Err("is made of too many parts"));
    }

    #[test]
    fn lists_of_nothing_are_refused() {
        assert_eq!(
            look(&[array(u32::MAX, 1), composite(&[])]),
            Err("lists what takes no byte")
        );
        assert_eq!(
            look(&[sequence(1), array(0, 2), number()]),
            Err("lists what takes no byte")
        );
        assert_eq!(look(&[sequence(1), array(64, 2), number()]), Ok(()));
    }
}
