//! Seeded chance: one stream per case, so a case is the same however many come before it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of random numbers that depends on the seed and the stream's number only.
#[derive(Clone)]
pub(in crate::sim) struct Dice(ChaCha8Rng);

impl Dice {
    /// The dice of stream 0.
    pub(in crate::sim) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// The same seed, another stream, from its start.
    pub(in crate::sim) fn stream(&self, stream: u64) -> Self {
        let mut dice = self.0.clone();
        dice.set_stream(stream);
        dice.set_word_pos(0);
        Self(dice)
    }

    /// A number from 0 to `bound - 1`; 0 when the bound is 0.
    pub(in crate::sim) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.0.next_u32()) * u128::from(bound);
        (wide >> 32) as u64
    }

    /// A number from `low` to `high`, both possible.
    pub(in crate::sim) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low).max(0).unsigned_abs() + 1) as i64
    }

    /// True `rate` times in a thousand.
    pub(in crate::sim) fn per_mille(&mut self, rate: u64) -> bool {
        self.below(1_000) < rate
    }

    /// One of a list that is not empty.
    pub(in crate::sim) fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len() as u64) as usize]
    }

    /// One of a list that is not empty, the earlier ones more often.
    pub(in crate::sim) fn early<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        let first = self.below(list.len() as u64);
        let second = self.below(list.len() as u64);
        list[first.min(second) as usize]
    }

    /// A random uuid (version 4).
    pub(in crate::sim) fn uuid(&mut self) -> String {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut bytes = [0_u8; 16];
        self.0.fill_bytes(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = String::with_capacity(36);
        for (at, byte) in bytes.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
        text
    }

    /// A text of `count` digits.
    pub(in crate::sim) fn digits(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }
}
