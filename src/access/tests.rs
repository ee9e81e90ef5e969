use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};

use super::*;
use crate::config::Secret;

const NOW: Duration = Duration::from_secs(1_800_000_000);
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let word =
            part.iter().fold(0u32, |word, b| word << 8 | u32::from(*b)) << (8 * (3 - part.len()));
        for place in 0..=part.len() {
            text.push(char::from(
                alphabet[(word >> (18 - 6 * place) & 63) as usize],
            ));
        }
    }
    text
}

const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn pem(der: &[u8]) -> String {
    let mut body = encode(der, STANDARD);
    while !body.len().is_multiple_of(4) {
        body.push('=');
    }
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
}

/// A token of these parts with its signature by `sign`.
fn token(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!(
        "{}.{}",
        encode(header.as_bytes(), URL),
        encode(claims.as_bytes(), URL)
    );
    let signature = sign(message.as_bytes());
    format!("{message}.{}", encode(&signature, URL))
}

fn hmac_with(key: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

fn hs256(claims: &str) -> String {
    token(
        r#"{"alg":"HS256","typ":"JWT"}"#,
        claims,
        hmac_with(SECRET.as_bytes()),
    )
}

fn with_secret(change: impl FnOnce(&mut config::Access)) -> Access {
    let mut settings = config::Access {
        anonymous: Vec::new(),
        jwt_secret: Secret::new(SECRET),
        ..config::Access::default()
    };
    change(&mut settings);
    Access::new(&settings).expect("good settings")
}

fn judge(access: &Access, token: &str) -> Result<Identity, Refusal> {
    access.judge(Some(token), NOW)
}

const GOOD: &str = r#"{"sub":"anna","name":"安娜","rights":["publish","play"],"streams":["live/anna","show/*"],"exp":1800000060}"#;

#[test]
fn a_token_says_who_and_what() {
    let anna = judge(&with_secret(|_| {}), &hs256(GOOD)).expect("good");
    assert_eq!(anna.user.as_deref(), Some("anna"));
    assert_eq!(anna.name.as_deref(), Some("安娜"));
    assert_eq!(
        (anna.kind, anna.expires),
        (Kind::Token, Some(1_800_000_060))
    );
    for (right, key, allowed) in [
        (Right::Publish, "live/anna", true),
        (Right::Play, "show/a", true),
        (Right::Play, "show/a/b", true),
        (Right::Play, "show/", true),
        (Right::Publish, "live/ann", false),
        (Right::Publish, "live/anna2", false),
        (Right::Play, "Show/a", false),
        (Right::Api, "show/a", false),
    ] {
        assert_eq!(anna.allows(right, Resource::Stream(key)), allowed, "{key}");
    }
    assert!(!anna.allows(Right::Room, Resource::Room("r")));
    let forbidden = anna.require(Right::Publish, Resource::Stream("live/bob"));
    assert_eq!(forbidden, Err(Refusal::Forbidden(Right::Publish)));
}

#[test]
fn without_rights_nothing_and_without_names_every_name() {
    let access = with_secret(|_| {});
    let nobody = judge(&access, &hs256(r#"{"sub":"a","exp":1800000060}"#)).expect("good");
    for right in Right::ALL {
        assert!(!nobody.allows(right, Resource::Any), "{right:?}");
    }
    let claims = r#"{"sub":"a","exp":1800000060,"rights":["room","fly"],"rooms":["ward-*"]}"#;
    let guest = judge(&access, &hs256(claims)).expect("good");
    assert!(guest.allows(Right::Room, Resource::Room("ward-3")));
    assert!(!guest.allows(Right::Room, Resource::Room("lobby")));
    let claims = r#"{"sub":"a","exp":1800000060,"rights":["play"],"streams":[]}"#;
    let none = judge(&access, &hs256(claims)).expect("good");
    assert!(!none.allows(Right::Play, Resource::Stream("live/a")));
}

#[test]
fn each_wrong_claim_is_refused_by_its_name() {
    let access = with_secret(|settings| {
        settings.jwt_audience = "gateway".into();
        settings.jwt_issuer = "school".into();
    });
    let rest = r#""sub":"a","aud":["x","gateway"],"iss":"school""#;
    let judge = |claims: String| judge(&access, &hs256(&claims)).map(|_| ());
    assert_eq!(judge(format!("{{{rest},\"exp\":1800000001}}")), Ok(()));
    assert_eq!(
        judge(format!("{{{rest},\"exp\":1799999970.5}}")),
        Ok(()),
        "leeway"
    );
    assert_eq!(
        judge(format!("{{{rest},\"exp\":1799999970}}")),
        Err(Refusal::Expired)
    );
    assert_eq!(
        judge(format!("{{{rest},\"exp\":-1}}")),
        Err(Refusal::Expired)
    );
    assert_eq!(judge(format!("{{{rest}}}")), Err(Refusal::NoExpiry));
    assert_eq!(
        judge(format!("{{{rest},\"exp\":\"1900000000\"}}")),
        Err(Refusal::Malformed)
    );
    assert_eq!(
        judge(format!("{{{rest},\"exp\":1e999}}")),
        Err(Refusal::Malformed)
    );
    let nbf = |nbf: u64| judge(format!("{{{rest},\"exp\":1900000000,\"nbf\":{nbf}}}"));
    assert_eq!(nbf(1_800_000_030), Ok(()));
    assert_eq!(nbf(1_800_000_031), Err(Refusal::NotYetValid));
    for (claims, refusal) in [
        (r#""aud":"gateway","iss":"school""#, Refusal::Claim("sub")),
        (
            r#""sub":"","aud":"gateway","iss":"school""#,
            Refusal::Claim("sub"),
        ),
        (
            r#""sub":"安娜","aud":"gateway","iss":"school""#,
            Refusal::Claim("sub"),
        ),
        (
            r#""sub":"a/b","aud":"gateway","iss":"school""#,
            Refusal::Claim("sub"),
        ),
        (
            r#""sub":"a","name":"\u0000","aud":"gateway","iss":"school""#,
            Refusal::Claim("name"),
        ),
        (
            r#""sub":"a","aud":"Gateway","iss":"school""#,
            Refusal::Audience,
        ),
        (r#""sub":"a","iss":"school""#, Refusal::Audience),
        (
            r#""sub":"a","aud":"gateway","iss":"scool""#,
            Refusal::Issuer,
        ),
        (r#""sub":"a","aud":"gateway""#, Refusal::Issuer),
        (
            r#""sub":"a","sub":"b","aud":"gateway","iss":"school""#,
            Refusal::Malformed,
        ),
        (
            r#""sub":1,"aud":"gateway","iss":"school""#,
            Refusal::Malformed,
        ),
        (
            r#""sub":"a","aud":"gateway","iss":"school","rights":"play""#,
            Refusal::Malformed,
        ),
    ] {
        assert_eq!(
            judge(format!("{{\"exp\":1900000000,{claims}}}")),
            Err(refusal),
            "{claims}"
        );
    }
    let lasting = with_secret(|settings| settings.jwt_require_expiry = false);
    assert!(super::tests::judge(&lasting, &hs256(r#"{"sub":"a"}"#)).is_ok());
}

struct Pairs {
    es256: EcdsaKeyPair,
    eddsa: Ed25519KeyPair,
}

fn pairs() -> Pairs {
    Pairs {
        es256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
        eddsa: Ed25519KeyPair::generate().expect("a key"),
    }
}

impl Pairs {
    fn pem(&self) -> [String; 2] {
        let es256 = self.es256.public_key().as_der().expect("DER");
        let eddsa = self.eddsa.public_key().as_der().expect("DER");
        [pem(es256.as_ref()), pem(eddsa.as_ref())]
    }

    fn es256(&self, claims: &str) -> String {
        token(r#"{"alg":"ES256"}"#, claims, |message| {
            let random = SystemRandom::new();
            self.es256
                .sign(&random, message)
                .expect("signed")
                .as_ref()
                .to_vec()
        })
    }

    fn eddsa(&self, claims: &str) -> String {
        let sign = |message: &[u8]| self.eddsa.sign(message).as_ref().to_vec();
        token(r#"{"alg":"EdDSA"}"#, claims, sign)
    }
}

#[test]
fn public_keys_verify_and_each_only_its_own_kind() {
    let (ours, theirs) = (pairs(), pairs());
    let [es256, eddsa] = ours.pem();
    let both = with_secret(|settings| {
        settings.jwt_secret = Secret::default();
        settings.jwt_public_key = Secret::new(format!("# keys\n{es256}{eddsa}"));
    });
    assert!(judge(&both, &ours.es256(GOOD)).is_ok());
    assert!(judge(&both, &ours.eddsa(GOOD)).is_ok());
    assert_eq!(judge(&both, &theirs.es256(GOOD)), Err(Refusal::Signature));
    assert_eq!(judge(&both, &theirs.eddsa(GOOD)), Err(Refusal::Signature));
    assert_eq!(judge(&both, &hs256(GOOD)), Err(Refusal::Algorithm));
    let one = with_secret(|settings| settings.jwt_public_key = Secret::new(eddsa.clone()));
    assert_eq!(judge(&one, &ours.es256(GOOD)), Err(Refusal::Algorithm));
    assert!(judge(&one, &hs256(GOOD)).is_ok(), "beside a secret");
}

#[test]
fn an_algorithm_of_the_attackers_choice_gets_nowhere() {
    let ours = pairs();
    let [es256, eddsa] = ours.pem();
    let access = with_secret(|settings| {
        settings.jwt_secret = Secret::default();
        settings.jwt_public_key = Secret::new(format!("{es256}{eddsa}"));
    });
    // HMAC with what everybody knows: the public key, in each form it may be had.
    for key in [
        es256.as_bytes(),
        es256.trim().as_bytes(),
        ours.es256.public_key().as_ref(),
        b"",
    ] {
        let forged = token(r#"{"alg":"HS256"}"#, GOOD, hmac_with(key));
        assert_eq!(judge(&access, &forged), Err(Refusal::Algorithm));
    }
    let unsigned = |message: &[u8]| {
        let _ = message;
        Vec::new()
    };
    for alg in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        "HS384",
        "RS256",
        "ES256K",
        "hs256",
        "ES256\\u0000",
    ] {
        for sign in [true, false] {
            let header = format!("{{\"alg\":\"{alg}\"}}");
            let forged = match sign {
                true => token(&header, GOOD, hmac_with(SECRET.as_bytes())),
                false => token(&header, GOOD, unsigned),
            };
            assert_eq!(judge(&access, &forged), Err(Refusal::Algorithm), "{alg}");
            assert_eq!(
                judge(&with_secret(|_| {}), &forged),
                Err(Refusal::Algorithm),
                "{alg}"
            );
        }
    }
    // A signature of the one kind under the name of the other.
    let sign = |message: &[u8]| ours.eddsa.sign(message).as_ref().to_vec();
    assert_eq!(
        judge(&access, &token(r#"{"alg":"ES256"}"#, GOOD, sign)),
        Err(Refusal::Signature)
    );
    // All zeroes verified in libraries that forgot to check (CVE-2022-21449).
    let zero = |_: &[u8]| vec![0; 64];
    for alg in ["ES256", "EdDSA"] {
        let forged = token(&format!("{{\"alg\":\"{alg}\"}}"), GOOD, zero);
        assert_eq!(judge(&access, &forged), Err(Refusal::Signature), "{alg}");
    }
    // Its own key, and an extension that must be understood.
    let header = r#"{"alg":"HS256","crit":["exp"]}"#;
    let forged = token(header, GOOD, hmac_with(SECRET.as_bytes()));
    assert_eq!(
        judge(&with_secret(|_| {}), &forged),
        Err(Refusal::Algorithm)
    );
    let header = r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"},"kid":"../../dev/null"}"#;
    let forged = token(header, GOOD, hmac_with(b"\0\0\0"));
    assert_eq!(
        judge(&with_secret(|_| {}), &forged),
        Err(Refusal::Signature)
    );
    let twice = token(
        r#"{"alg":"none","alg":"HS256"}"#,
        GOOD,
        hmac_with(SECRET.as_bytes()),
    );
    assert_eq!(judge(&with_secret(|_| {}), &twice), Err(Refusal::Malformed));
}

#[test]
fn cut_flipped_and_foreign_tokens_are_refused() {
    let access = with_secret(|_| {});
    let good = hs256(GOOD);
    for end in 0..good.len() {
        let cut = &good[..end];
        assert!(end == 0 || judge(&access, cut).is_err(), "{cut}");
    }
    for at in 0..good.len() {
        for bit in 0..7 {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let flipped = String::from_utf8(bytes).expect("ASCII");
            assert!(judge(&access, &flipped).is_err(), "{flipped}");
        }
    }
    for foreign in [
        ".",
        "..",
        "...",
        "a.b.c",
        "é.é.é",
        "\0",
        "Bearer x",
        " ",
        &good.replace('.', ".."),
        &format!("{good}."),
        &format!("{good}="),
        &format!(" {good}"),
        &format!("{good}\n"),
        &"x".repeat(TOKEN_BYTES_MAX),
        &"x".repeat(TOKEN_BYTES_MAX + 1),
        &".".repeat(TOKEN_BYTES_MAX),
        &format!("{}.{}.x", encode("[".repeat(5_000).as_bytes(), URL), "e30"),
    ] {
        assert!(judge(&access, foreign).is_err(), "{foreign}");
    }
    assert_eq!(access.judge(None, NOW), Err(Refusal::Missing));
    assert_eq!(access.judge(Some(""), NOW), Err(Refusal::Missing));
    assert_eq!(judge(&access, "opaque"), Err(Refusal::Unknown));
}

#[test]
fn the_secret_may_do_everything_and_nothing_near_it_anything() {
    let access = with_secret(|settings| {
        settings.secret = Secret::new("swordfish");
        settings.anonymous = vec![Right::Play];
    });
    let operator = judge(&access, "swordfish").expect("the secret");
    assert_eq!(operator.kind, Kind::Secret);
    assert!(
        Right::ALL
            .iter()
            .all(|right| operator.allows(*right, Resource::Stream("x/y")))
    );
    for near in ["swordfis", "swordfish ", "Swordfish", "swordfish\0"] {
        assert_eq!(judge(&access, near), Err(Refusal::Unknown), "{near}");
    }
    let anonymous = access.judge(None, NOW).expect("may play");
    assert!(anonymous.allows(Right::Play, Resource::Stream("live/a")));
    let publish = anonymous.require(Right::Publish, Resource::Stream("live/a"));
    assert_eq!(publish, Err(Refusal::Missing));
    assert!(!format!("{access:?}").contains("swordfish"));
}

#[test]
fn where_no_secret_is_configured_a_token_means_nothing() {
    let access = Access::new(&config::Access::default()).expect("good settings");
    let anyone = judge(&access, "my own").expect("anonymous");
    assert_eq!((anyone.kind, anyone.user), (Kind::Anonymous, None));
}

#[test]
fn a_stream_is_its_users_or_its_tokens() {
    let access = with_secret(|_| {});
    let (old, new) = (hs256(GOOD), hs256(&GOOD.replace("060", "070")));
    let anna = judge(&access, &old).expect("good");
    let first = Holder::new(Some(&old), Some(&anna));
    assert!(
        first.is_same(&Holder::new(Some(&new), Some(&anna))),
        "a fresh token"
    );
    assert!(
        first.is_same(&Holder::new(Some(&old), None)),
        "an expired one"
    );
    assert!(!first.is_same(&Holder::new(Some(&new), None)));
    let nobody = Holder::new(None, None);
    assert!(nobody.is_nobody() && !nobody.is_same(&nobody) && !first.is_same(&nobody));
}

#[test]
fn useless_keys_are_refused_with_the_cure() {
    let [es256, _] = pairs().pem();
    let cut = es256.replace("MFkw", "MFk");
    let off_curve = format!("{}AAAA{}", &es256[..70], &es256[74..]);
    let private = es256.replace("PUBLIC", "PRIVATE");
    let rsa = es256.replace("PUBLIC KEY", "RSA PUBLIC KEY");
    let nine = es256.repeat(9);
    for (secret, public, key, says) in [
        ("short", "", "access.jwt_secret", "at least 32 bytes"),
        ("", "keys/public.pem", "access.jwt_public_key", "file:"),
        ("", &cut, "access.jwt_public_key", "not base64"),
        ("", &private, "access.jwt_public_key", "private key"),
        ("", &rsa, "access.jwt_public_key", "RSA PUBLIC KEY"),
        ("", &nine, "access.jwt_public_key", "more than 8"),
        ("", &off_curve, "access.jwt_public_key", "rejected"),
        ("", &pem(&[0x30, 0]), "access.jwt_public_key", "neither"),
        (
            "",
            "-----BEGIN PUBLIC KEY-----\n",
            "access.jwt_public_key",
            "without its end",
        ),
    ] {
        let settings = config::Access {
            jwt_secret: Secret::new(secret),
            jwt_public_key: Secret::new(public),
            ..config::Access::default()
        };
        let error = Access::new(&settings).expect_err(says);
        assert_eq!(error.key, key);
        assert!(error.reason.contains(says), "{error}");
    }
}
