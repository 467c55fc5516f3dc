//! `gatepost check`: reads everything, starts every plugin, and prints the chain.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::{Address, Hook};

use super::users::Users;
use super::{MISTAKE, assemble};
use crate::chain::Chain;
use crate::report;

/// Checks a configuration, and what these users have elsewhere. What is wrong goes to standard error, the chain, and what was found of the users, to
/// standard output.
pub fn check(path: Option<&Path>, users: &[Address]) -> ExitCode {
    let assembled = match assemble::start(path) {
        Ok(assembled) => assembled,
        Err(code) => return code,
    };
    print!("{}", describe(&assembled.generation.chain));
    let mut code = ExitCode::SUCCESS;
    assembled.runtime.block_on(async {
        for address in users {
            match found(assembled.generation.users.as_ref(), address).await {
                Ok(text) => println!("{text}"),
                Err(text) => {
                    report::flush();
                    eprintln!("{text}");
                    code = ExitCode::from(MISTAKE);
                }
            }
        }
        assembled
            .generation
            .processes
            .shutdown(Duration::ZERO)
            .await;
    });
    report::flush();
    code
}

async fn found(users: Option<&Arc<Users>>, address: &Address) -> Result<String, String> {
    match users {
        Some(users) => users.check(address).await,
        None => Err(format!(
            "{}: users have no settings elsewhere: `user_config` is not set, and no plugin hooks user_config",
            address.as_str()
        )),
    }
}

/// The chain in order, a line for each hook that anybody takes part in.
fn describe(chain: &Chain) -> String {
    let width = Hook::ALL
        .iter()
        .map(|hook| hook.name().len())
        .max()
        .unwrap_or_default();
    let mut text = String::new();
    for hook in Hook::ALL {
        let asked = chain
            .asked_at(hook)
            .map(|together| match together.as_slice() {
                [one] => (*one).to_owned(),
                several => format!("[{}]", several.join(", ")),
            });
        let mut said: Vec<String> = asked.collect();
        said.extend(chain.told_of(hook).map(|name| format!("({name})")));
        if !said.is_empty() {
            let _ = writeln!(text, "{:width$}  {}", hook.name(), said.join(", "));
        }
    }
    text
}
