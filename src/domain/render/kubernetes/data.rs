//! Datastores as claims.

use crate::domain::plan::{InputMode, PlannedData};

/// Where the claims are mounted.
const ROOT: &str = "/data";

/// A datastore as a claim.
pub(super) struct Claim<'a> {
    pub(super) datastore: &'a str,
    /// The claim's name; a datastore's may have letters that no claim has.
    pub(super) name: String,
    pub(super) mount: String,
    pub(super) read_only: bool,
}

/// The claims of a run.
#[derive(Default)]
pub(super) struct Claims<'a> {
    pub(super) list: Vec<Claim<'a>>,
}

/// One claim for each datastore that data is in.
pub(super) fn claims(data: &PlannedData) -> Claims<'_> {
    let mut claims = Claims::default();
    for input in &data.inputs {
        claims.add(&input.datastore, input.mode == InputMode::Upload);
    }
    if let Some(checkpoint) = &data.resume_from {
        claims.add(&checkpoint.datastore, false);
    }
    claims
}

impl<'a> Claims<'a> {
    fn add(&mut self, datastore: &'a str, written: bool) {
        if let Some(claim) = self.list.iter_mut().find(|claim| claim.datastore == datastore) {
            claim.read_only &= !written;
            return;
        }
        let plain = datastore.to_ascii_lowercase().replace('_', "-");
        let plain = plain.trim_end_matches('-');
        let taken = self.list.iter().filter(|claim| claim.mount == format!("{ROOT}/{plain}")).count();
        // Two datastores whose names differ in what no claim's name has.
        let plain = if taken > 0 { format!("{plain}.{}", self.list.len()) } else { plain.to_owned() };
        self.list.push(Claim {
            datastore,
            name: format!("estimatord-data-{plain}"),
            mount: format!("{ROOT}/{plain}"),
            read_only: !written,
        });
    }

    /// Where something of a datastore is.
    pub(super) fn path(&self, datastore: &str, path: &str) -> String {
        let mount =
            self.list.iter().find(|claim| claim.datastore == datastore).map(|claim| claim.mount.as_str());
        let mount = mount.unwrap_or(ROOT);
        if path.is_empty() { mount.to_owned() } else { format!("{mount}/{}", path.trim_start_matches('/')) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datastore_has_a_claim_of_its_own() {
        let mut claims = Claims::default();
        for (datastore, written) in [("My_Files-", false), ("my-files", false), ("My_Files-", true)] {
            claims.add(datastore, written);
        }
        let seen: Vec<_> = claims.list.iter().map(|claim| (claim.name.as_str(), claim.read_only)).collect();
        assert_eq!(seen, [("estimatord-data-my-files", false), ("estimatord-data-my-files.1", true)]);
        assert_eq!(claims.path("my-files", "a/b c"), "/data/my-files.1/a/b c");
        assert_eq!(claims.path("My_Files-", ""), "/data/my-files");
    }
}
