//! Damage to input that was good: what grammars do not produce.

use crate::random::Random;

/// Values that sit at the edge of something.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_fffe,
    0xffff_ffff,
    u64::MAX,
];

/// Bytes that mean something nearly everywhere.
const BYTES: &[u8] = b"\0\t\n\r \"%&',-./:;=?@[\\]_{}~\x7f\x80\xc0\xe2\xed\xf4\xff0aAz";

/// Changes the input in one to four places. It grows no longer than the limit. `words` are pieces
/// that mean something to the target; `other` is another input to take pieces from.
pub(crate) fn mutate(
    random: &mut Random,
    input: &mut Vec<u8>,
    words: &[&[u8]],
    other: &[u8],
    limit: usize,
) {
    for _ in 0..=random.below(4) {
        step(random, input, words, other);
    }
    input.truncate(limit);
}

fn step(random: &mut Random, input: &mut Vec<u8>, words: &[&[u8]], other: &[u8]) {
    let at = random.below(input.len() + 1);
    match random.below(12) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.pick(BYTES),
        2 if at < input.len() => input[at] = random.byte(),
        3 => {
            let range = range(random, input.len());
            input.drain(range);
        }
        4 => {
            let copied = input[range(random, input.len())].to_vec();
            insert(input, at, &copied);
        }
        5 => {
            let length = 1 + random.length(16);
            let noise = random.bytes(length);
            insert(input, at, &noise);
        }
        6 if !words.is_empty() => insert(input, at, random.pick(words)),
        7 if random.one_in(4) => input.truncate(at),
        8 => {
            // A length or count that is not true, in either byte order.
            let width = random.pick(&[1, 2, 4, 8]);
            let value = random.pick(&EDGES).wrapping_add(random.below(3) as u64);
            let mut bytes = value.to_le_bytes()[..width].to_vec();
            if random.one_in(2) {
                bytes.reverse();
            }
            let end = input.len().min(at + width);
            input.splice(at..end, bytes);
        }
        9 => {
            let piece = other[range(random, other.len())].to_vec();
            let end = input.len().min(at + random.length(piece.len()));
            input.splice(at..end, piece);
        }
        10 => {
            let byte = random.pick(BYTES);
            let most = random.pick(&[40, 40, 40, 40, 40, 4_000]);
            let times = 1 + random.length(most);
            insert(input, at, &vec![byte; times]);
        }
        11 if input.len() > 1 => {
            let (one, other) = (random.below(input.len()), random.below(input.len()));
            input.swap(one, other);
        }
        _ => insert(input, at, &[random.pick(BYTES)]),
    }
}

/// Somewhere in so many bytes, rather short.
fn range(random: &mut Random, length: usize) -> std::ops::Range<usize> {
    let start = random.below(length + 1);
    start..start + random.length(length - start)
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}
