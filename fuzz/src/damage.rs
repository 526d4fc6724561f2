//! Random damage to valid inputs, the same for the same seed.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

/// Numbers at which lengths and offsets go wrong.
const EDGES: [u32; 8] = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, u32::MAX];

/// A source of damaged inputs.
pub struct Damage {
    random: ChaCha8Rng,
    sound: Vec<Vec<u8>>,
}

impl Damage {
    /// Of these inputs.
    pub fn new(seed: u64, sound: Vec<Vec<u8>>) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed), sound }
    }

    fn below(&mut self, end: usize) -> usize {
        (self.random.next_u64() % end.max(1) as u64) as usize
    }

    /// One of the inputs, damaged in one to eight places.
    pub fn next_input(&mut self) -> Vec<u8> {
        let index = self.below(self.sound.len());
        let mut bytes = self.sound[index].clone();
        for _ in 0..=self.below(8) {
            self.damage(&mut bytes);
        }
        bytes
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let place = self.below(bytes.len());
        let end = (place + 1 + self.below(16)).min(bytes.len());
        let place = place.min(end);
        match self.below(7) {
            0 => bytes.truncate(place),
            1 => drop(bytes.drain(place..end)),
            2 => {
                let again = bytes[place..end].to_vec();
                bytes.splice(place..place, again);
            }
            3 => {
                let other = self.below(self.sound.len());
                let from = self.below(self.sound[other].len());
                let part: Vec<u8> = self.sound[other].iter().skip(from).take(end - place).copied().collect();
                bytes.splice(place..end, part);
            }
            4 => {
                let edge = EDGES[self.below(EDGES.len())];
                let edge = if self.below(2) == 0 { edge.to_le_bytes() } else { edge.to_be_bytes() };
                let width = [1, 2, 4][self.below(3)];
                for (byte, new) in bytes[place..end].iter_mut().zip(&edge[..width]) {
                    *byte = *new;
                }
            }
            5 => {
                for byte in &mut bytes[place..end] {
                    *byte = self.random.next_u32() as u8;
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << (self.random.next_u32() % 8);
                }
            }
        }
    }
}
