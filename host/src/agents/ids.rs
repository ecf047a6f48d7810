//! Names that the daemon makes up.

use stigmer_sdk::{Error, Result};

use crate::config::Secret;

/// The digits of base 32 in the order of their bytes, without `i`, `l`, `o` and
/// `u`, which people misread.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// `prefix` and 26 letters and digits: 48 bits of the time, so that ids sort
/// by age, and 80 random ones.
pub(super) fn new_id(prefix: &str, now_ms: u64) -> Result<String> {
    let mut bits = [0; 16];
    random(&mut bits[6..])?;
    bits[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
    let bits = u128::from_be_bytes(bits);
    let digits = (0..26)
        .rev()
        .map(|place| char::from(DIGITS[(bits >> (5 * place) & 31) as usize]));
    Ok(prefix.chars().chain(digits).collect())
}

/// 128 random bits that nobody guesses.
pub(super) fn new_token() -> Result<Secret> {
    let mut bits = [0; 16];
    random(&mut bits)?;
    Ok(Secret::new(format!("{:032x}", u128::from_be_bytes(bits))))
}

fn random(bytes: &mut [u8]) -> Result<()> {
    // Up to 256 bytes come whole or not at all.
    rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty())
        .map(|_| ())
        .map_err(|error| Error::internal("cannot make up an id", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_age_and_differ() {
        let (a, b) = (new_id("exe-", 1).unwrap(), new_id("exe-", 2).unwrap());
        assert_eq!((a.len(), &a[..13]), (30, "exe-000000000"));
        assert!(a < b, "{a} {b}");
        let latest = new_id("exe-", u64::MAX).unwrap();
        assert!(
            latest > b && latest.starts_with("exe-7zzzzzzzzz"),
            "{latest}"
        );
        assert_ne!(new_id("", 1).unwrap(), new_id("", 1).unwrap());
        assert_ne!(new_token().unwrap().expose(), new_token().unwrap().expose());
    }
}
