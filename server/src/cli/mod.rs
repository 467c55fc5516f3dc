//! What a person types.

mod assemble;
mod check;
mod compare;
mod confine;
mod control;
mod distinctions;
mod explain;
mod handover;
mod import;
mod leftovers;
mod origins;
mod outbox;
mod plugin_test;
mod privileges;
mod quarantine;
mod rehearsal;
mod reload;
mod run;
mod scaffold;
mod self_signed;
mod service_manager;
mod stored;
pub mod transcript;
mod users;

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use gatepost_protocol::Address;
use tokio::runtime::{Builder, Runtime};

use control::Wanted;

use crate::config;
use crate::plugins;

/// Failed while running.
const FAILED: u8 = 1;
/// A mistake in the configuration or the arguments.
const MISTAKE: u8 = 2;
/// How long a thread for work that waits for the disk stays when there is none.
const THREAD_KEPT: Duration = Duration::from_secs(60);

/// What a daemon starts the process with that is to take its place.
const TAKE_OVER: &str = "--take-over";

/// An SMTP daemon whose behaviour is its plugins.
#[derive(Parser)]
#[command(name = "gatepost", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Run {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print the built-in configuration, as a start for one of your own, and exit
        #[arg(long, conflicts_with = "config")]
        write_config: bool,
        /// Take the place of the daemon at the other side of standard input, which starts us
        #[arg(long, hide = true)]
        take_over: bool,
    },
    /// Read the configuration, start every plugin, and print the chain
    Check {
        #[command(flatten)]
        config: ConfigArgument,
        /// Read the settings, too, that this user has elsewhere (`user_config`); may be given several times
        #[arg(long = "user", value_name = "ADDRESS", value_parser = explain::recipient)]
        users: Vec<Address>,
    },
    /// Have the running daemon read its configuration, certificates and plugins anew; sessions go on
    Reload {
        #[command(flatten)]
        config: ConfigArgument,
        /// Leave the processes of other plugins as they are, where their configuration is the same
        #[arg(value_name = "PLUGIN")]
        plugins: Vec<String>,
    },
    /// Have a new process, of the program as it is on disk now, take the place of the running daemon; no session is lost
    Upgrade {
        #[command(flatten)]
        config: ConfigArgument,
        /// How long the new process may take to be ready
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        within: u64,
    },
    /// Say why a message was decided as it was, or how one would be that is on standard input
    Explain {
        #[command(flatten)]
        config: ConfigArgument,
        #[command(flatten)]
        question: explain::Question,
    },
    /// Play sessions by two configurations, and show where these decide differently; nothing is delivered
    Compare(compare::Question),
    /// Begin, test or host plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Make a configuration of another server's
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// See what waits in the outbox, have it tried now, or throw it away
    #[command(subcommand)]
    Outbox(outbox::OutboxCommand),
    /// See what is quarantined or held, release it, or throw it away
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// Make certificates
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Run a program held as a plugin's is by its setting `confine`
    Confine(confine::Held),
}

#[derive(clap::Args)]
struct ConfigArgument {
    /// The configuration [default: ./gatepost.toml, then /etc/gatepost/gatepost.toml, then the built-in one]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum PluginCommand {
    /// Make a folder with a plugin, its tests and a configuration
    New {
        /// The language
        #[arg(long, value_enum)]
        lang: scaffold::Language,
        /// The plugin's name
        name: String,
    },
    /// Play a dialogue against a server with just this plugin
    Test {
        /// A built-in plugin's name, a Python or Perl file, or a program
        plugin: String,
        /// The dialogue
        transcript: PathBuf,
    },
    /// Serve the built-in plugins as a plugin process: for `run` in a configuration
    Serve,
}

#[derive(Subcommand)]
enum TlsCommand {
    /// Make a certificate that nobody vouches for, with its key, for a start
    SelfSigned {
        /// A name of this server; may be given several times [default: the machine's own name]
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
        /// The folder to write cert.pem and key.pem to
        #[arg(long, value_name = "DIR", default_value = "tls")]
        out: PathBuf,
    },
}

/// Does what the command line says; the exit code is 0 where all went well, 1 where running failed, 2 for a mistake of the operator's.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run {
            write_config: true, ..
        } => {
            print!("{}", config::BUILT_IN);
            ExitCode::SUCCESS
        }
        Command::Run {
            config, take_over, ..
        } => run::run(config.config.as_deref(), take_over),
        Command::Check { config, users } => check::check(config.config.as_deref(), &users),
        Command::Compare(question) => compare::compare(&question),
        Command::Reload { config, plugins } => {
            control::ask(config.config.as_deref(), Wanted::Reload(plugins))
        }
        Command::Upgrade { config, within } => {
            let within = Duration::from_secs(within);
            control::ask(config.config.as_deref(), Wanted::Upgrade(within))
        }
        Command::Explain { config, question } => {
            explain::explain(config.config.as_deref(), question)
        }
        Command::Plugin(PluginCommand::New { lang, name }) => {
            match scaffold::create(lang, &name, config::parts::find) {
                Ok(next) => {
                    print!("{next}");
                    ExitCode::SUCCESS
                }
                Err(error) => refuse(&error),
            }
        }
        Command::Plugin(PluginCommand::Test { plugin, transcript }) => {
            plugin_test::test(&plugin, &transcript)
        }
        Command::Import(command) => import::import(&command),
        Command::Outbox(command) => outbox::outbox(&command),
        Command::Quarantine(command) => quarantine::quarantine(&command),
        Command::Tls(TlsCommand::SelfSigned { names, out }) => self_signed::write(names, &out),
        Command::Confine(held) => confine::confine(held),
        Command::Plugin(PluginCommand::Serve) => {
            gatepost_protocol::serve(Vec::leak(plugins::all()))
        }
    }
}

/// The runtime that sessions run in: threads for half of the cores.
///
/// Plugin processes, the threads that sync files and the kernel's network code have their share of the machine too. Measured on two cores, one
/// thread took up to half more small messages than two, which mostly wake each other.
///
/// # Errors
/// The threads cannot be started.
pub fn runtime() -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(cores.div_ceil(2))
        .thread_keep_alive(THREAD_KEPT)
        .enable_all()
        .build()
}

fn refuse(error: &str) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(MISTAKE)
}
