//! The instructions that a slot, a command, a frame and a record take: what code costs, whatever
//! else the machine is doing. `docs/PERFORMANCE.md` has the table, which the gate checks.
//!
//! Each piece of work runs in a process of its own under valgrind's `callgrind`, which counts the
//! instructions of one function, `counted_work`. What is set up before is not counted.
//!
//! Usage: `instructions` prints the table; `--check FILE` compares it to the one in that file, if
//! that is of the same compiler, and `--write FILE` puts it there.

#![expect(clippy::print_stdout, reason = "it reports")]

mod table;
mod work;

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

use crate::table::Table;
use crate::work::{WORK, Work};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => print!("{}", count_all()?),
        ["--write", file] => {
            let text = fs::read_to_string(file)?;
            fs::write(file, Table::replaced_in(&text, &count_all()?)?)?;
        }
        ["--check", file] => {
            let expected = Table::read(&fs::read_to_string(file)?)?;
            let found = count_all()?;
            print!("{found}");
            if expected.compiler != found.compiler {
                println!("not compared: the table is of {}", expected.compiler);
                return Ok(ExitCode::SUCCESS);
            }
            let differences = expected.differences(&found);
            differences.iter().for_each(|difference| println!("{difference}"));
            return Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        ["--run", name] => {
            let work = WORK.iter().find(|work| work.name == name).ok_or("no such work")?;
            println!("{}", (work.run)());
        }
        _ => return Err("usage: instructions [--check FILE | --write FILE]".into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn count_all() -> Outcome<Table> {
    let folder = tempfile::tempdir()?;
    let counts = WORK.iter().map(|work| Ok((work.name.to_owned(), count(work, folder.path())?)));
    let compiler = Command::new("rustc").arg("--version").output()?.stdout;
    let compiler = String::from_utf8(compiler)?.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Ok(Table { compiler, counts: counts.collect::<Outcome<_>>()? })
}

/// The instructions of one unit of `work`.
fn count(work: &Work, folder: &Path) -> Outcome<u64> {
    let file = folder.join("counts");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_work*", "--quiet"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(env::current_exe()?)
        .args(["--run", work.name])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{}: {}: {said}", work.name, output.status).into());
    }
    let units: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
    let counts = fs::read_to_string(file)?;
    let total = counts.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: u64 = total.ok_or("callgrind has counted nothing")?.trim().parse()?;
    Ok(total / units)
}
