//! Datastores as claims.

use crate::domain::plan::{InputMode, PlannedData, PlannedInput};

/// Where the claims are mounted.
const ROOT: &str = "/data-claims";

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
    /// Inputs that the definition wants in a place of its own.
    pub(super) placed: Vec<&'a PlannedInput>,
}

/// One claim for each datastore that data is in.
pub(super) fn claims(data: &PlannedData) -> Claims<'_> {
    let mut claims = Claims::default();
    for input in &data.inputs {
        claims.add(&input.datastore, input.mode == InputMode::Upload);
        if let Some(place) = place(input)
            && claims.placed.iter().all(|other| other.path_on_compute.as_deref() != Some(place))
        {
            claims.placed.push(input);
        }
    }
    if let Some(checkpoint) = &data.resume_from {
        claims.add(&checkpoint.datastore, false);
    }
    claims
}

/// Where a part of a claim can be mounted for an input: an absolute path that nothing else needs, and a path in the
/// datastore that is no pattern.
pub(super) fn place(input: &PlannedInput) -> Option<&str> {
    let place = input.path_on_compute.as_deref()?;
    let names: Vec<&str> = place.strip_prefix('/')?.split('/').collect();
    let free = !matches!(
        names[0],
        "work" | "tmp" | "environment" | "source" | "data-claims" | "dev" | "proc" | "sys"
    );
    let sound = names.iter().all(|name| !matches!(*name, "" | "." | "..")) && !place.contains(':');
    (free && sound && !input.path.contains(['*', '?', '['])).then_some(place)
}

impl<'a> Claims<'a> {
    /// Where an input is.
    pub(super) fn input(&self, input: &PlannedInput) -> String {
        match place(input) {
            Some(place) if self.placed.contains(&input) => place.to_owned(),
            _ => self.path(&input.datastore, &input.path),
        }
    }

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
        assert_eq!(claims.path("my-files", "a/b c"), "/data-claims/my-files.1/a/b c");
        assert_eq!(claims.path("My_Files-", ""), "/data-claims/my-files");
    }
}
