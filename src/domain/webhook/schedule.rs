//! When a delivery is tried again: soon at first, then for three days ever more seldom.

/// How often a message is tried.
pub const TRIES: u32 = 10;

/// A receiver may ask for a pause as long as this, and no longer.
pub const LONGEST_PAUSE_SECONDS: u64 = 86_400;

/// The pauses between tries, in seconds: those that the Standard Webhooks specification suggests.
const PAUSES: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// The pause before the next try in seconds, when `tries_left` are left; none when none is. `jitter` (0 to 255) makes it longer by
/// up to a tenth, so that what failed together does not come back together.
#[must_use]
pub fn pause(tries_left: u32, jitter: u8) -> Option<u64> {
    let made = usize::try_from(TRIES.checked_sub(tries_left)?.checked_sub(1)?).ok()?;
    let pause = *PAUSES.get(made)?;
    Some(pause + pause * u64::from(jitter) / 2_550)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<_> = (0..TRIES).rev().map(|left| pause(left, 0)).collect();
        assert_eq!((pauses[0], pauses[8], pauses[9]), (Some(5), Some(86_400), None));
        assert!(pauses[..9].is_sorted());
        assert_eq!(pause(0, 255), None);
        assert_eq!((pause(8, 255), pause(8, 0)), (Some(330), Some(300)));
        assert_eq!(pause(TRIES, 0), None);
    }
}
