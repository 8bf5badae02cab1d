//! Numbers from a seed: the same seed gives the same numbers on every machine.

/// A SplitMix64 generator: small, quick, and good enough to choose what to do next.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of one run, thread or round. Those of neighbouring runs are unrelated, so that any of
    /// them can be repeated alone.
    pub(crate) fn new(seed: u64, run: u64) -> Self {
        let mut random = Self(seed);
        let mixed = random.next() ^ run.wrapping_mul(0xd1b5_4a32_d192_ed03);
        Self(mixed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// A number below the limit, which is not zero.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// A length up to the limit, short ones much likelier.
    pub(crate) fn length(&mut self, limit: usize) -> usize {
        let limit = 1 + self.below(limit + 1);
        self.below(limit)
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        *self.choose(items)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    /// So many characters of an alphabet.
    pub(crate) fn text(&mut self, alphabet: &[u8], length: usize) -> String {
        (0..length)
            .map(|_| char::from(self.pick(alphabet)))
            .collect()
    }
}
