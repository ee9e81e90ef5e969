use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

const ALL: [SrtpProfile; 3] = [
    SrtpProfile::AES128_CM_SHA1_80,
    SrtpProfile::AEAD_AES_128_GCM,
    SrtpProfile::AEAD_AES_256_GCM,
];

/// Both ends of a session: what the server seals, the client opens.
fn pair(profile: SrtpProfile) -> (Sealer, Opener) {
    let material: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
    let material = KeyingMaterial::new(&material);
    let (sealer, _) = contexts(&material, profile, false).unwrap();
    let (_, opener) = contexts(&material, profile, true).unwrap();
    (sealer, opener)
}

/// RFC 3711 appendix B.3.
#[test]
fn keys_are_derived_as_specified() {
    let master = Master::new(
        SrtpProfile::AES128_CM_SHA1_80,
        &bytes("E1F97A0D3E018BE0D64FA32C06DE4139"),
        &bytes("0EC675AD498AFEEBB6960B3AABE6"),
    )
    .unwrap();
    for (label, expected) in [
        (0, "C61E7A93744F39EE10734AFE3FF7A087"),
        (1, "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"),
        (2, "30CBBC08863D8C85D49DB34A9AE1"),
    ] {
        let expected = bytes(expected);
        let mut key = vec![0; expected.len()];
        master.derive(label, &mut key).unwrap();
        assert_eq!(key, expected, "label {label}");
    }
}

const HEADER: &str = "8040f17b 8041f8d3 5501a0b2";
const PAYLOAD: &str = "47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 61727465 \
                       73207472 6573";

fn specified(algorithm: &'static aws_lc_rs::aead::Algorithm, key: &[u8]) -> Cipher {
    Cipher::Gcm {
        key: LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap()),
        salt: *bytes("51756964 2070726f 2071756f").first_chunk().unwrap(),
    }
}

/// RFC 7714 sections 16.1.1 and 16.2.1.
#[test]
fn packets_are_sealed_as_specified() {
    let key: Vec<u8> = (0..32).collect();
    let short = "f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf \
                 8833899d 7f27beb1 6a9152cf 765ee439 0cce";
    let long = "32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 \
                b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13";
    for (algorithm, length, sealed) in [(&AES_128_GCM, 16, short), (&AES_256_GCM, 32, long)] {
        let sealer = Sealer {
            rtp: specified(algorithm, &key[..length]),
            rtcp: specified(algorithm, &key[..length]),
            rtcp_index: 0,
        };
        let payload = bytes(PAYLOAD);
        // In one piece, and with a prefix as retransmissions have it.
        for split in [0, 2] {
            let mut out = vec![9; 3];
            out.extend(bytes(HEADER));
            let (prefix, rest) = payload.split_at(split);
            sealer
                .seal_rtp(&mut out, 3, 0x5501_a0b2, 0xf17b, prefix, rest)
                .unwrap();
            assert_eq!(out[..3], [9; 3]);
            assert_eq!(out[15..], bytes(sealed), "{length} {split}");
            assert_eq!(out.len(), 15 + payload.len() + sealer.overhead());
        }
    }
}

/// RFC 7714 section 17.3.
#[test]
fn reports_are_sealed_as_specified() {
    let key: Vec<u8> = (0..32).collect();
    let mut sealer = Sealer {
        rtp: specified(&AES_256_GCM, &key),
        rtcp: specified(&AES_256_GCM, &key),
        rtcp_index: 0x5d4,
    };
    let mut report = bytes(
        "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef \
         deadbeef deadbeef deadbeef",
    );
    let plain = report.clone();
    sealer.seal_rtcp(&mut report).unwrap();
    let sealed = bytes(
        "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be \
         8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
    );
    assert_eq!(report, sealed);
    let mut opener = Opener {
        rtcp: specified(&AES_256_GCM, &key),
        sources: Vec::new(),
    };
    assert_eq!(opener.open_rtcp(&mut report), Some(&plain[..]));
}

fn report(ssrc: u8) -> Vec<u8> {
    vec![0x80, 201, 0, 1, 0, 0, 0, ssrc, 1, 2, 3, 4]
}

#[test]
fn a_report_is_opened_once_and_only_unchanged() {
    for profile in ALL {
        let (mut sealer, mut opener) = pair(profile);
        let mut sealed = report(7);
        sealer.seal_rtcp(&mut sealed).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opener.open_rtcp(&mut flipped), None, "{profile:?} {bit}");
        }
        for length in 0..sealed.len() {
            let mut cut = sealed[..length].to_vec();
            assert_eq!(opener.open_rtcp(&mut cut), None, "{profile:?} {length}");
        }
        assert_eq!(
            opener.open_rtcp(&mut sealed.clone()),
            Some(&report(7)[..]),
            "{profile:?}"
        );
        assert_eq!(opener.open_rtcp(&mut sealed), None, "again");
    }
}

#[test]
fn reports_may_overtake_each_other_by_63() {
    let (mut sealer, mut opener) = pair(SrtpProfile::AEAD_AES_128_GCM);
    let all: Vec<Vec<u8>> = (0..200)
        .map(|_| {
            let mut sealed = report(7);
            sealer.seal_rtcp(&mut sealed).unwrap();
            sealed
        })
        .collect();
    let mut opens = |n: usize| opener.open_rtcp(&mut all[n].clone()).is_some();
    assert!(opens(100));
    assert!(opens(37) && !opens(37));
    assert!(!opens(36), "too old to tell");
    assert!(opens(101) && opens(99) && !opens(100));
    assert!(opens(199) && !opens(101) && opens(198));
}

#[test]
fn sources_of_reports_are_bounded() {
    let (mut sealer, mut opener) = pair(SrtpProfile::AEAD_AES_256_GCM);
    let opened = (0..100).filter(|ssrc| {
        let mut sealed = report(*ssrc);
        sealer.seal_rtcp(&mut sealed).unwrap();
        opener.open_rtcp(&mut sealed).is_some()
    });
    assert_eq!(opened.count(), SOURCES_MAX);
}
