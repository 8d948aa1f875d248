//! A stable 64-bit digest for identities.

/// FNV-1a over 64 bits: of no use against an adversary, and none is assumed; what it guards against
/// is two nodes that were configured apart or two clusters that were mixed up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Digest(u64);

impl Digest {
    /// Starts a digest of `domain`, so that equal words in two places digest apart.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        let mut digest = Self(0xCBF2_9CE4_8422_2325);
        for byte in domain.bytes() {
            digest = digest.byte(byte);
        }
        digest
    }

    /// Adds a word, little end first.
    #[must_use]
    pub fn word(mut self, word: u64) -> Self {
        for byte in word.to_le_bytes() {
            self = self.byte(byte);
        }
        self
    }

    /// Adds a text and where it ends, so that no two lists of texts digest alike.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        text.bytes().fold(self.word(text.len() as u64), Self::byte)
    }

    /// The digest of everything added.
    #[must_use]
    pub fn finish(self) -> u64 {
        self.0
    }

    fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
    }
}
