//! Millions of bodies, put together from pools of likely values: cheap to make, and each is known by its seed.
//!
//! What holds for every body is in `properties`; here nothing may panic, and whatever is read gets a verdict.

use std::sync::LazyLock;

use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Map, Value};

use super::{
    all, examples,
    properties::{any_value, facts},
};
use crate::domain::{
    definition::SIGNATURE,
    facts::Facts,
    json,
    judge::{judge, plan, wanted},
    render::{Format, Subject, render},
};

/// What bodies are made of.
struct Pool {
    /// Values of any kind, likely texts among them.
    values: Vec<Value>,
    /// Members that mean something: those of the examples of the rules.
    members: Vec<(String, Value)>,
    /// What is known when a body names the snapshots of the examples.
    facts: [Facts; 2],
}

static POOL: LazyLock<Pool> = LazyLock::new(|| {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[3; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = any_value();
    let mut value = || strategy.new_tree(&mut runner).expect("nothing is filtered").current();
    let mut members = Vec::new();
    for rule in all() {
        let view = rule.view().examples;
        members.extend(view.refused);
        members.extend(view.accepted.into_iter().flatten());
    }
    let mut files = examples::base();
    files.insert("source_directory".to_owned(), examples::FILES_SNAPSHOT.into());
    Pool {
        values: (0..20_000).map(|_| value()).collect(),
        members,
        facts: [examples::facts(&files), facts().clone()],
    }
});

/// A generator of numbers that costs next to nothing (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).expect("small");
        usize::try_from(self.next() % bound).expect("small")
    }

    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// The body that belongs to a seed, as a client would send it.
fn sent(seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let mut body = if numbers.below(4) == 0 { Map::new() } else { examples::base() };
    for _ in 0..numbers.below(7) {
        let (name, value) = match numbers.below(8) {
            0..5 => numbers.one_of(&POOL.members).clone(),
            5..7 => (numbers.one_of(&SIGNATURE[..]).name.to_owned(), numbers.one_of(&POOL.values).clone()),
            _ => (format!("p{}", numbers.below(50)), numbers.one_of(&POOL.values).clone()),
        };
        body.insert(name, value);
    }
    let mut bytes = serde_json::to_vec(&body).expect("any JSON value can be written");
    if numbers.below(5) == 0 {
        for _ in 0..=numbers.below(3) {
            let at = numbers.below(bytes.len());
            bytes[at] = *numbers.one_of(b"\"{}[],:\\0-.eu tn\xff\x00");
        }
    }
    bytes
}

/// All that is done with a body between the request and the answer, renderings included.
fn answer(seed: u64) -> bool {
    let Ok(body) = json::parse_object(&sent(seed)) else { return false };
    let facts = &POOL.facts[usize::from(seed.is_multiple_of(2))];
    let _ = wanted(&body);
    let verdict = judge(&body, facts);
    assert!(serde_json::to_string(&verdict.findings).is_ok_and(|text| text.len() > 2), "seed {seed}");
    let Some(accepted) = &verdict.accepted else { return true };
    let plan = plan(accepted);
    let subject = Subject { plan: &plan, definition: Some(&accepted.definition) };
    let format = Format::ALL[usize::try_from(seed % 4).expect("small")];
    assert!(!render(format, &subject).text.is_empty(), "seed {seed}");
    true
}

proptest! {
    #[test]
    fn whatever_is_sent_gets_an_answer(seed in any::<u64>()) {
        let _ = answer(seed);
    }

    // Twice, so that two cores have work.
    #[test]
    #[ignore = "millions of bodies: `make fuzz`"]
    fn fuzz_one_half(seed in any::<u64>()) {
        let _ = answer(seed);
    }

    #[test]
    #[ignore = "millions of bodies: `make fuzz`"]
    fn fuzz_the_other_half(seed in any::<u64>()) {
        let _ = answer(seed);
    }
}

#[test]
fn most_bodies_are_read_and_many_are_accepted() {
    let read = (0..2000).filter(|seed| answer(*seed)).count();
    assert!((1500..2000).contains(&read), "{read} of 2000 are JSON objects");
    let accepted = (0..2000).filter(|seed| {
        let body = json::parse_object(&sent(*seed)).ok();
        body.is_some_and(|body| judge(&body, &POOL.facts[0]).is_valid())
    });
    let accepted = accepted.count();
    assert!((100..1500).contains(&accepted), "{accepted} of 2000 are accepted");
}
