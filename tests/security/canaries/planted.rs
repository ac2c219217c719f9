//! The texts that must come out nowhere, and how they are looked for.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};

pub const REGISTRY: &str = "canary-registry-1c9a4e";
pub const ACCESS_KEY: &str = "canary-access-key-77f02b";
pub const SESSION: &str = "canary-session-5be1d0";
pub const ACCOUNT_KEY: &str = "Y2FuYXJ5LWFjY291bnQta2V5LTlk"; // An account key of Azure is base64.
pub const TOKEN: &str = "canary-api-token-e41f8c22";
pub const WRONG_TOKEN: &str = "canary-wrong-token-b8d6570a";
pub const DATABASE: &str = "canary-database-3d95c1";
pub const VARIABLE: &str = "canary-variable-a60e2f";
pub const KEY: &str = "ca4a7c0de5ca4a7c0de5ca4a7c0de5ca4a7c0de5ca4a7c0de5ca4a7c0de5ca4a";
pub const OTHER_KEY: &str = "0ddca4a7e50ddca4a7e50ddca4a7e50ddca4a7e50ddca4a7e50ddca4a7e50ddc";

/// What must be nowhere, and what it is.
#[derive(Clone)]
pub struct Canaries(pub BTreeMap<&'static str, String>);

impl Canaries {
    pub fn new() -> Self {
        let texts = [
            ("registry password", REGISTRY),
            ("secret access key", ACCESS_KEY),
            ("session token", SESSION),
            ("account key", ACCOUNT_KEY),
            ("API token", TOKEN),
            ("wrong API token", WRONG_TOKEN),
            ("database password", DATABASE),
            ("variable of the service", VARIABLE),
            ("secret key", KEY),
            ("other secret key", OTHER_KEY),
        ];
        Self(texts.into_iter().map(|(what, text)| (what, text.to_owned())).collect())
    }

    /// None of them is in there: as it is, as hexadecimal digits, or in base64 at any offset.
    #[track_caller]
    pub fn are_not_in(&self, place: &str, text: &[u8]) {
        let text = String::from_utf8_lossy(text).to_ascii_lowercase();
        for (what, canary) in &self.0 {
            for form in forms(canary) {
                if let Some(at) = text.find(&form) {
                    let before: String = text[..at].chars().rev().take(300).collect();
                    let before: String = before.chars().rev().collect();
                    panic!("the {what} is in {place}: …{before}{form}…");
                }
            }
        }
    }
}

/// In small letters.
fn forms(canary: &str) -> Vec<String> {
    let hex: String = canary.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![canary.to_ascii_lowercase(), hex];
    for offset in 0..3 {
        let before = [&b"\0\0"[..offset], canary.as_bytes()].concat();
        let encoded = BASE64_STANDARD.encode(before);
        // The first and the last characters have bits of what is around it.
        forms.push(encoded[4..encoded.len() - 4].to_ascii_lowercase());
    }
    forms
}
