//! `loggos kv`: one command to a running cluster.

use std::io::Write;

use clap::{Args, Subcommand};
use loggos::kv::{Answer, Command};

use crate::exit::{self, Exit};
use crate::remote::Target;

/// The operation, and its key.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Clone, Debug, Subcommand)]
enum Operation {
    /// Print the value of a key; without one, fail.
    Get {
        /// The key.
        key: String,
    },
    /// Set the value of a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: String,
    },
    /// Delete a key.
    Del {
        /// The key.
        key: String,
    },
    /// Add to the number that a key holds, 0 if there is none, and print the sum.
    Incr {
        /// The key.
        key: String,
        /// The number to add.
        #[arg(default_value_t = 1, allow_hyphen_values = true)]
        by: i64,
    },
}

/// Executes the command and prints its answer.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut command = Vec::new();
    match &options.operation {
        Operation::Get { key } => Command::Get { key: key.as_bytes() },
        Operation::Put { key, value } => {
            Command::Put { key: key.as_bytes(), value: value.as_bytes() }
        }
        Operation::Del { key } => Command::Delete { key: key.as_bytes() },
        Operation::Incr { key, by } => Command::Increment { key: key.as_bytes(), by: *by },
    }
    .encode(&mut command)?;
    let executed = options.target.execute(&command)?;
    let answer = Answer::decode(executed.reply.as_slice())
        .map_err(|_| "unrecognised reply: is this cluster running another state machine?")?;
    print(answer, &options.operation)
}

/// Prints values and sums as they are; what was not as asked for is an error.
fn print(answer: Answer<'_>, operation: &Operation) -> Result<(), Box<dyn std::error::Error>> {
    let (Operation::Get { key }
    | Operation::Put { key, .. }
    | Operation::Del { key }
    | Operation::Incr { key, .. }) = operation;
    let mut out = exit::stdout();
    match answer {
        Answer::Stored | Answer::Deleted => writeln!(out, "OK")?,
        Answer::Value(value) => {
            out.write_all(value)?;
            out.write_all(b"\n")?;
        }
        Answer::Number(number) => writeln!(out, "{number}")?,
        Answer::Missing => return no_such(format!("`{key}` has no value")),
        Answer::NotANumber => return no_such(format!("the value of `{key}` is not a number")),
        Answer::Overflow => return no_such(format!("`{key}`: the sum does not fit in 64 bits")),
        Answer::Malformed | Answer::Versioned { .. } | Answer::Swapped | Answer::Mismatch(_) => {
            return Err(format!("`{key}`: unexpected reply {answer:?}").into());
        }
    }
    Ok(())
}

/// The command was executed, and what it needs is not there: that is not the failure of a command.
fn no_such(why: String) -> Result<(), Box<dyn std::error::Error>> {
    Err(Exit { code: exit::NO_SUCH_VALUE, why }.into())
}
