//! Writes what fuzzing begins with into `corpus`, beside what is there: to be run in this folder
//! after the format has changed, before a round of fuzzing and `cargo fuzz cmin`.

use std::path::Path;

use loggos_fuzz::seeds;

fn main() -> std::io::Result<()> {
    for (target, seeds) in [
        ("frames", seeds::frames()),
        ("headers", seeds::headers()),
        ("contents", seeds::contents()),
        ("configuration", seeds::configuration()),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
