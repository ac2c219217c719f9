//! Secrets and signatures (Standard Webhooks, `v1`): HMAC-SHA256 over `id.timestamp.body`, in Base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::domain::secret::Secret;

/// What a secret begins with, for people who find one.
const PREFIX: &str = "whsec_";

/// How many random bytes a secret has: between the 24 and 64 of the specification.
pub const SECRET_BYTES: usize = 32;

/// A secret of these random bytes.
#[must_use]
pub fn secret(bytes: [u8; SECRET_BYTES]) -> Secret {
    Secret::new(format!("{PREFIX}{}", STANDARD.encode(bytes)))
}

/// The value of `webhook-signature`: one signature for each secret, so that a receiver that knows either is content. A secret
/// that is none of ours signs nothing.
#[must_use]
pub fn sign(secrets: &[Secret], id: &str, timestamp: i64, body: &str) -> String {
    let signatures = secrets.iter().filter_map(|secret| {
        let key = STANDARD.decode(secret.expose().strip_prefix(PREFIX)?).ok()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the specification's libraries are tested with.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let signed = sign(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn two_secrets_are_two_signatures() {
        let (one, two) = (secret([1; SECRET_BYTES]), secret([2; SECRET_BYTES]));
        assert!(one.expose().starts_with("whsec_") && one != two);
        let both = sign(&[one.clone(), two], "id", 1, "{}");
        let words: Vec<_> = both.split(' ').collect();
        assert_eq!(words.len(), 2);
        assert_eq!(words[0], sign(&[one], "id", 1, "{}"));
        assert_eq!(sign(&[Secret::new("no secret of ours".to_owned())], "id", 1, "{}"), "");
    }
}
