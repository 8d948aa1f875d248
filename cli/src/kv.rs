//! `loggos kv`: one command to a running cluster.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use loggos::kv::{Answer, Command};
use loggos::{Consistency, Position};
use serde_json::{Value, json};

use crate::exit::{self, Exit};
use crate::remote::Target;

/// The operation, and its key.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Print an object in JSON: the key, its value if there is one to tell, and the slot and index
    /// where the command was executed. What is read reflects all before its slot and index.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Clone, Debug, Subcommand)]
enum Operation {
    /// Print the value of a key; without one, fail.
    Get {
        /// The key.
        key: String,
        /// What the answer must reflect: all that was answered before; or, of this command that has
        /// seen nothing yet, what any replica has executed.
        #[arg(long, value_name = "LEVEL", default_value = "linearizable")]
        read: Level,
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

/// What a read must reflect.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Level {
    Linearizable,
    Sequential,
    Eventual,
}

impl From<Level> for Consistency {
    fn from(level: Level) -> Self {
        match level {
            Level::Linearizable => Self::Linearizable,
            Level::Sequential => Self::Sequential,
            Level::Eventual => Self::Eventual,
        }
    }
}

/// Executes the command, or asks what is to be read, and prints the answer.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut command = Vec::new();
    match &options.operation {
        Operation::Get { key, .. } => Command::Get { key: key.as_bytes() },
        Operation::Put { key, value } => {
            Command::Put { key: key.as_bytes(), value: value.as_bytes() }
        }
        Operation::Del { key } => Command::Delete { key: key.as_bytes() },
        Operation::Incr { key, by } => Command::Increment { key: key.as_bytes(), by: *by },
    }
    .encode(&mut command)?;
    let executed = match options.operation {
        Operation::Get { read, .. } => options.target.query(read.into(), &command)?,
        Operation::Put { .. } | Operation::Del { .. } | Operation::Incr { .. } => {
            options.target.execute(&command)?
        }
    };
    let answer = Answer::decode(executed.reply.as_slice())
        .map_err(|_| "unrecognised reply: is this cluster running another state machine?")?;
    let key = options.operation.key();
    if options.json {
        writeln!(exit::stdout(), "{}", to_json(key, answer, executed.at))?;
    } else {
        print(answer)?;
    }
    judge(answer, key)
}

impl Operation {
    fn key(&self) -> &str {
        let (Self::Get { key, .. }
        | Self::Put { key, .. }
        | Self::Del { key }
        | Self::Incr { key, .. }) = self;
        key
    }
}

/// Prints values and sums as they are.
fn print(answer: Answer<'_>) -> std::io::Result<()> {
    let mut out = exit::stdout();
    match answer {
        Answer::Stored | Answer::Deleted => writeln!(out, "OK"),
        Answer::Value(value) => {
            out.write_all(value)?;
            out.write_all(b"\n")
        }
        Answer::Number(number) => writeln!(out, "{number}"),
        Answer::Missing
        | Answer::NotANumber
        | Answer::Overflow
        | Answer::Malformed
        | Answer::Versioned { .. }
        | Answer::Swapped
        | Answer::Mismatch(_) => Ok(()),
    }
}

/// Returns the answer as an object: the key, what it holds now if that was asked for, and where the
/// command was executed, or what the answer reflects ends. A value that is no text is told in
/// hexadecimal digits, as `value_hex`.
fn to_json(key: &str, answer: Answer<'_>, at: Position) -> Value {
    let mut object = json!({ "key": key, "slot": at.slot.0, "index": at.index });
    let (name, value) = match answer {
        Answer::Value(value) => match std::str::from_utf8(value) {
            Ok(text) => ("value", json!(text)),
            Err(_) => (
                "value_hex",
                value.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
            ),
        },
        Answer::Number(number) => ("value", json!(number)),
        Answer::Missing => ("value", Value::Null),
        Answer::Stored
        | Answer::Deleted
        | Answer::NotANumber
        | Answer::Overflow
        | Answer::Malformed
        | Answer::Versioned { .. }
        | Answer::Swapped
        | Answer::Mismatch(_) => return object,
    };
    object[name] = value;
    object
}

/// What was not as asked for is an error.
fn judge(answer: Answer<'_>, key: &str) -> Result<(), Box<dyn std::error::Error>> {
    match answer {
        Answer::Stored | Answer::Deleted | Answer::Value(_) | Answer::Number(_) => Ok(()),
        Answer::Missing => no_such(format!("`{key}` has no value")),
        Answer::NotANumber => no_such(format!("the value of `{key}` is not a number")),
        Answer::Overflow => no_such(format!("`{key}`: the sum does not fit in 64 bits")),
        Answer::Malformed | Answer::Versioned { .. } | Answer::Swapped | Answer::Mismatch(_) => {
            Err(format!("`{key}`: unexpected reply {answer:?}").into())
        }
    }
}

/// The command was executed, and what it needs is not there: that is not the failure of a command.
fn no_such(why: String) -> Result<(), Box<dyn std::error::Error>> {
    Err(Exit { code: exit::NO_SUCH_VALUE, why }.into())
}
