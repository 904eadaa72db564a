#!/usr/bin/env python3
"""Derives golden.json a second time, with other people's implementations, from docs/FORMAT.md alone.

The Rust tests check the crate against golden.json; this checks golden.json against the document. Run by hand after a change
of format (which needs a new format version) or of this file:

    python3 -m venv /tmp/rederive
    /tmp/rederive/bin/pip install cryptography argon2-cffi blake3 py-sr25519-bindings py-bip39-bindings base58
    /tmp/rederive/bin/python crypto/testdata/rederive.py            # compares, exit code 1 on any difference
    /tmp/rederive/bin/python crypto/testdata/rederive.py --write    # writes golden.json

AES, ChaCha20, HKDF come from OpenSSL (cryptography), Argon2id from the reference C code (argon2-cffi), BLAKE2b, PBKDF2 and
SHA from Python itself. sr25519 and BLAKE3 have one implementation everybody binds to; BIP-39 comes from another crate's binding.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import sys

import argon2
import base58
import bip39
import blake3
import sr25519
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

VERSION = bytes([1])


def le(value, size):
    return value.to_bytes(size, "little")


def pattern(length):
    """Test plaintext: byte i is i mod 251."""
    return bytes(i % 251 for i in range(length))


def tree_key(parent, label, context=b""):
    return HKDF(hashes.SHA256(), 32, None, label.encode() + b"\0" + context).derive(parent)


def item_key(parent, item):
    return blake3.blake3(item, key=parent).digest()


# ---- inputs ------------------------------------------------------------------------------------------------------------

ENTROPY = bytes(range(32))
PHRASE = (
    "abandon amount liar amount expire adjust cage candy arch gather drum bullet "
    "absurd math era live bid rhythm alien crouch range attend journey unaware"
)
VOLUME = bytes(range(0xA0, 0xB0))
KINDS = {"chunk": 1, "delta": 2, "directory": 3, "header": 4, "footer": 5}
LABEL_KINDS = {"data": 1, "checkpoint": 2}
SLOT_KINDS = {"passphrase": 1, "phrase": 2, "key-file": 3}


def address(prefix, account):
    if prefix < 64:
        head = bytes([prefix])
    else:
        head = bytes([((prefix & 0xFC) >> 2) | 0x40, (prefix >> 8) | ((prefix & 3) << 6)])
    body = head + account
    return base58.b58encode(body + hashlib.blake2b(b"SS58PRE" + body).digest()[:2]).decode()


def keys():
    root = tree_key(ENTROPY, "cessfs/v1/root")
    volume = tree_key(root, "cessfs/v1/volume", VOLUME)
    at_rest = tree_key(volume, "cessfs/v1/volume/at-rest")
    mini = hashlib.pbkdf2_hmac("sha512", ENTROPY, b"mnemonic", 2048)[:32]
    assert bip39.bip39_validate(PHRASE, "en")
    assert bytes(bip39.bip39_to_mini_secret(PHRASE, "", "en")) == mini
    account = bytes(sr25519.pair_from_seed(mini)[0])
    return {
        "root": root,
        "label": tree_key(root, "cessfs/v1/label"),
        "volume": volume,
        "chunk_id": tree_key(volume, "cessfs/v1/volume/chunk-id"),
        "frame": tree_key(volume, "cessfs/v1/volume/frame"),
        "pad": tree_key(volume, "cessfs/v1/volume/pad"),
        "at_rest": at_rest,
        "record": tree_key(at_rest, "cessfs/v1/at-rest/record"),
        "name": tree_key(at_rest, "cessfs/v1/at-rest/name"),
        "inode": tree_key(at_rest, "cessfs/v1/at-rest/inode"),
        "account_mini_secret": mini,
        "account_id": account,
    }


# ---- formats -----------------------------------------------------------------------------------------------------------


def chunk_ids(k):
    for length in (0, 1, 4096, 1 << 20):
        yield {"length": length, "id": blake3.blake3(pattern(length), key=k["chunk_id"]).hexdigest()}


def frame(k, kind, name, nonce, plaintext):
    if "chunk" in name:
        form, body = 0, bytes.fromhex(name["chunk"])
    else:
        form, body = 1, le(name["seq"], 8) + le(name["index"], 4) + bytes(20)
    described = VERSION + VOLUME + bytes([KINDS[kind], form]) + body
    aad = described + le(len(plaintext), 8)
    key = item_key(k["frame"], described)
    return {
        "kind": kind,
        "name": name,
        "nonce": nonce.hex(),
        "plaintext": plaintext.hex(),
        "aad": aad.hex(),
        "key": key.hex(),
        "sealed": (nonce + AESGCM(key).encrypt(nonce, plaintext, aad)).hex(),
    }


def frames(k):
    hello = b"hello cess"
    chunk = blake3.blake3(hello, key=k["chunk_id"]).hexdigest()
    yield frame(k, "chunk", {"chunk": chunk}, bytes(range(0x10, 0x1C)), hello)
    yield frame(k, "chunk", {"chunk": "ff" * 32}, bytes(12), b"")
    yield frame(k, "delta", {"seq": 7, "index": 0}, bytes(range(0x20, 0x2C)), b"delta")
    yield frame(k, "directory", {"seq": 7, "index": 1}, bytes(range(0x30, 0x3C)), pattern(100))
    yield frame(k, "header", {"seq": 1, "index": 0}, bytes(range(0x40, 0x4C)), b"header")
    yield frame(k, "footer", {"seq": 2**64 - 1, "index": 2**32 - 1}, bytes(range(0x50, 0x5C)), b"footer")


def labels(k):
    for seq, epoch, kind in ((1, 1, "data"), (258, 3, "checkpoint"), (2**64 - 1, 2**32 - 1, "data")):
        plain = VOLUME + le(seq, 8) + le(epoch, 4) + bytes([LABEL_KINDS[kind], 0])
        sealed = VERSION + AESGCMSIV(k["label"]).encrypt(bytes(12), plain, b"cessfs/v1/pack-label" + VERSION)
        text = base64.urlsafe_b64encode(sealed).decode().rstrip("=")
        assert len(text) == 63
        yield {"seq": seq, "epoch": epoch, "kind": kind, "plaintext": plain.hex(), "text": text}


def pads(k):
    for seq, offset, length in ((1, 0, 64), (1, 61, 70), (7, (32 << 30) + 5, 32)):
        key = item_key(k["pad"], VERSION + le(seq, 8))
        stream = Cipher(algorithms.ChaCha20(key, le(offset // 64, 4) + bytes(12)), None).encryptor()
        stream.update(bytes(offset % 64))
        yield {"seq": seq, "offset": offset, "key": key.hex(), "bytes": stream.update(bytes(length)).hex()}


def records(k):
    for key, value, nonce in ((b"i\x00\x00\x00\x00\x00\x00\x00\x01", b"inode record", bytes(range(12))), (b"", b"", bytes(12))):
        sealed = nonce + AESGCMSIV(k["record"]).encrypt(nonce, value, key or None)
        yield {"key": key.hex(), "value": value.hex(), "nonce": nonce.hex(), "sealed": sealed.hex()}


def blocks(k):
    for ino, block, version, nonce in ((1, 0, 0, bytes(12)), (258, 70000, 9, bytes(range(0x60, 0x6C)))):
        key = item_key(k["inode"], VERSION + le(ino, 8))
        aad = VERSION + VOLUME + le(ino, 8) + le(block, 8) + le(version, 4)
        sealed = AESGCMSIV(key).encrypt(nonce, pattern(4096), aad)
        yield {
            "ino": ino,
            "block": block,
            "version": version,
            "nonce": nonce.hex(),
            "key": key.hex(),
            "aad": aad.hex(),
            "ciphertext_head": sealed[:16].hex(),
            "ciphertext_sha256": hashlib.sha256(sealed[:4096]).hexdigest(),
            "tag": sealed[4096:].hex(),
        }


def name_hashes(k):
    for parent, name in ((1, b"README.md"), (1, b""), (2**64 - 1, "Grüße".encode())):
        digest = blake3.blake3(le(parent, 8) + name, key=k["name"]).digest()
        yield {"parent": parent, "name": name.hex(), "hash": int.from_bytes(digest[:8], "little") & (2**62 - 1)}


def slot(k, kind, secret, salt, nonce, cost=None):
    costs = (cost["memory_kib"], cost["passes"], cost["lanes"]) if cost else (0, 0, 0)
    header = VERSION + VOLUME + bytes([SLOT_KINDS[kind], 1 if cost else 2])
    header += b"".join(le(c, 4) for c in costs) + salt
    if cost:
        memory, passes, lanes = costs
        secret = argon2.low_level.hash_secret_raw(secret, salt, passes, memory, lanes, 32, argon2.Type.ID, 0x13)
    prk = hmac.new(salt, secret, "sha256").digest()
    expand = lambda label: HKDFExpand(hashes.SHA256(), 32, label.encode() + b"\0" + header).derive(prk)
    kek, commitment = expand("cessfs/v1/slot/kek"), expand("cessfs/v1/slot/commitment")
    return {
        "kind": kind,
        "kdf": {"name": "argon2id", **cost} if cost else {"name": "hkdf-sha256"},
        "salt": salt.hex(),
        "nonce": nonce.hex(),
        "commitment": commitment.hex(),
        "wrapped": AESGCMSIV(kek).encrypt(nonce, k["root"] + k["account_mini_secret"], header).hex(),
    }


def slots(k):
    passphrase, key_file = b"correct horse battery staple", pattern(100)
    cost = {"memory_kib": 8192, "passes": 1, "lanes": 2}
    draw = lambda first, size: bytes(range(first, first + size))
    return {
        "passphrase": passphrase.decode(),
        "key_file_length": len(key_file),
        "file": {
            "format": "cessfs-keys",
            "version": 1,
            "volume": VOLUME.hex(),
            "slots": [
                slot(k, "passphrase", passphrase, draw(0x00, 32), draw(0x70, 12), cost),
                slot(k, "phrase", ENTROPY, draw(0x20, 32), draw(0x80, 12)),
                slot(k, "key-file", key_file, draw(0x40, 32), draw(0x90, 12)),
            ],
        },
    }


def golden():
    k = keys()
    return {
        "comment": "Written by rederive.py; see README.md. Patterned plaintext: byte i is i mod 251.",
        "phrase": PHRASE,
        "entropy": ENTROPY.hex(),
        "volume": VOLUME.hex(),
        "keys": {name: key.hex() for name, key in k.items()},
        "address_42": address(42, k["account_id"]),
        "address_11330": address(11330, k["account_id"]),
        "chunk_ids": list(chunk_ids(k)),
        "frames": list(frames(k)),
        "labels": list(labels(k)),
        "pads": list(pads(k)),
        "records": list(records(k)),
        "blocks": list(blocks(k)),
        "name_hashes": list(name_hashes(k)),
        "slots": slots(k),
    }


def main():
    path = pathlib.Path(__file__).with_name("golden.json")
    text = json.dumps(golden(), indent=1) + "\n"
    if "--write" in sys.argv[1:]:
        path.write_text(text)
        return 0
    kept = json.loads(path.read_text())
    wrong = [name for name, value in json.loads(text).items() if kept.get(name) != value] + [name for name in kept if name not in json.loads(text)]
    print("different: " + ", ".join(wrong) if wrong else f"all {len(kept)} sections agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
