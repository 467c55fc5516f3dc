//! `gatepost import qpsmtpd`: a site's folder to a configuration that does the same.

mod built_ins;
mod chain;
mod core;
mod lines;
mod modules;
mod report;
mod trial;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use super::{FAILED, refuse};
use crate::config::FlatFiles;

/// What `gatepost import` can read.
#[derive(Subcommand)]
pub enum ImportCommand {
    /// Make a configuration of a qpsmtpd site, and say what each plugin becomes and needs
    Qpsmtpd(Request),
}

#[derive(clap::Args)]
pub struct Request {
    /// The site's folder, with `config` in it; or that folder itself
    dir: PathBuf,
    /// Folders with plugin files [default: those of config/plugin_dirs, else `plugins` in the site's folder]
    #[arg(long, value_name = "DIR", num_args = 1..)]
    plugin_dirs: Vec<PathBuf>,
    /// Write the configuration to this file, which must not be there [default: print it]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Keep every line as the Perl plugin that it is
    #[arg(long)]
    perl: bool,
}

/// Where a site has its parts; all paths are absolute.
pub struct Site {
    /// The folder that qpsmtpd is started in.
    home: PathBuf,
    config: PathBuf,
    plugin_dirs: Vec<PathBuf>,
    /// The folder with modules of the site's own, where the chain names one of them.
    lib: Option<PathBuf>,
}

/// Prints or writes the configuration; what is to be known about it goes to standard error.
pub fn import(command: &ImportCommand) -> ExitCode {
    let ImportCommand::Qpsmtpd(request) = command;
    if let Some(file) = request.out.as_deref().filter(|file| file.exists()) {
        return refuse(&format!(
            "{} is there already: remove it, or name another file with -o",
            file.display()
        ));
    }
    let (mut site, gone) = match find(request) {
        Ok(found) => found,
        Err(error) => return refuse(&error),
    };
    let mut lines = lines::logging(&site.config);
    let (plugins, mut notes) = lines::read(&site.config, "plugins");
    lines.extend(plugins);
    notes.extend(
        gone.iter()
            .map(|dir| format!("there is no folder {} for plugins", dir.display())),
    );
    let mut items = chain::place(lines, &site, request.perl);
    site.lib = own_modules(&site, &items);
    let text = match trial::settle(&site, &mut items, &mut notes) {
        Ok(text) => text,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(FAILED);
        }
    };
    report::print(&site, &items, &notes);
    let written = match &request.out {
        None => std::io::stdout().write_all(text.as_bytes()),
        Some(file) => {
            std::fs::File::create_new(file).and_then(|mut it| it.write_all(text.as_bytes()))
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the configuration cannot be written: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// The site, and folders for plugins that are not there.
fn find(request: &Request) -> Result<(Site, Vec<PathBuf>), String> {
    let whole = |path: &Path| {
        std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let dir = whole(&request.dir)?;
    let config = [dir.join("config"), dir.clone()]
        .into_iter()
        .find(|folder| chain::is_config(folder))
        .ok_or_else(|| format!("there is no file `config/plugins` in {0}, nor `plugins`: name the folder of a qpsmtpd site", dir.display()))?;
    let home = match config.parent() {
        Some(parent) if config.ends_with("config") => parent.to_owned(),
        _ => config.clone(),
    };
    let mut plugin_dirs = Vec::new();
    for dir in &request.plugin_dirs {
        plugin_dirs.push(whole(dir)?);
    }
    if plugin_dirs.is_empty() {
        let listed = FlatFiles::new(config.clone()).lines("plugin_dirs")?;
        plugin_dirs = listed.iter().map(|dir| home.join(dir)).collect();
    }
    if plugin_dirs.is_empty() {
        plugin_dirs.push(home.join("plugins"));
    }
    let (there, gone): (Vec<PathBuf>, Vec<PathBuf>) =
        plugin_dirs.iter().cloned().partition(|dir| dir.is_dir());
    if !there.is_empty() {
        plugin_dirs = there;
    }
    let site = Site {
        home,
        config,
        plugin_dirs,
        lib: None,
    };
    Ok((site, gone))
}

/// qpsmtpd finds modules in `lib` where it is started.
fn own_modules(site: &Site, items: &[chain::Item]) -> Option<PathBuf> {
    let lib = site.home.join("lib");
    let is_there = |entry: &chain::Entry| {
        entry.words.is_module() && lib.join(chain::module_file(entry.words.plugin())).is_file()
    };
    items
        .iter()
        .filter_map(chain::Item::entry)
        .any(is_there)
        .then(|| lib.clone())
}
