//! Settings that single users have elsewhere than in the configuration: in folders of their own (`user_config`), and with plugins that hook
//! `user_config`. Found when a recipient is there, and kept for as long as they hold.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use gatepost_protocol::{Address, Args, EnhancedCode, Hook, Level, Verdict};

use super::assemble::Workshop;
use super::distinctions::{self, Files};
use crate::chain::{Chain, Decision, Distinct, Found, Profile, Visit};
use crate::config::{self, FolderState, Mistakes, Scope, UserSettings};
use crate::report;
use crate::services::{Answers, Recent, kept_for};

/// Users whose settings are kept.
const KEPT: usize = 4096;
/// Answers of plugins that are kept; somebody may be trying all names there are.
const ANSWERS: usize = 16_384;

/// Who has settings elsewhere, and what they are.
pub struct Users {
    chain: Weak<Chain>,
    workshop: Arc<Workshop>,
    /// Whether plugins are to be asked.
    asks: bool,
    brought: Answers<Option<Arc<Scope>>, Box<Decision>>,
    known: Mutex<Recent<Known>>,
    /// Held while settings are read and plugins made from them: many who wait for the same find it done.
    turn: tokio::sync::Mutex<()>,
}

/// What a user's settings were made from, and what came of it.
#[derive(Clone)]
struct Known {
    state: Option<FolderState>,
    brought: Option<Arc<Scope>>,
    profile: Option<Arc<Profile>>,
}

impl Known {
    fn holds(&self, state: Option<&FolderState>, brought: Option<&Arc<Scope>>) -> bool {
        self.state.as_ref() == state
            && state.is_none_or(FolderState::is_settled)
            && self.brought.as_ref().map(Arc::as_ptr) == brought.map(Arc::as_ptr)
    }
}

impl Users {
    /// `None` where nobody has settings elsewhere: there are no folders, and no plugin hooks `user_config`.
    pub(super) fn new(workshop: &Arc<Workshop>, chain: &Arc<Chain>) -> Option<Arc<Users>> {
        let asks = chain.asks(Hook::UserConfig);
        if !asks && workshop.config.user_config.is_none() {
            return None;
        }
        Some(Arc::new(Users {
            chain: Arc::downgrade(chain),
            workshop: workshop.clone(),
            asks,
            brought: Answers::new(ANSWERS),
            known: Mutex::new(Recent::new(KEPT)),
            turn: tokio::sync::Mutex::new(()),
        }))
    }

    /// What holds for a recipient.
    pub(super) async fn find(self: Arc<Users>, address: Address) -> Found {
        let chain = self.chain.upgrade().ok_or_else(not_now)?;
        let brought = match self.asks {
            true => self.ask(&chain, &address).await?,
            false => None,
        };
        let folder = self.folder_of(&address);
        let state = folder.as_deref().and_then(|folder| {
            let state = FolderState::of(folder);
            state.unwrap_or_else(|mistakes| {
                log(Level::Error, &mistakes);
                None
            })
        });
        if state.is_none() && brought.is_none() {
            return Ok(chain.configured_profile(&address));
        }
        let name = address.to_lowercase();
        let known = || {
            let known = lock(&self.known).get(&name);
            known.filter(|known| known.holds(state.as_ref(), brought.as_ref()))
        };
        if let Some(known) = known() {
            return Ok(known.profile);
        }
        let _turn = self.turn.lock().await;
        if let Some(known) = known() {
            return Ok(known.profile);
        }
        let users = self.clone();
        let scope = brought.clone();
        let folder = folder.filter(|_| state.is_some());
        let make = move || users.make(&chain, &address, folder.as_deref(), scope.as_deref());
        let made = tokio::task::spawn_blocking(make).await;
        let profile = made.map_err(|_| not_now())?;
        let known = Known {
            state,
            brought,
            profile: profile.clone(),
        };
        lock(&self.known).insert(name, known);
        Ok(profile)
    }

    /// Reads the settings of a user, for who wants to know whether they are right. Returns what there is, in words.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) async fn check(self: &Arc<Users>, address: &Address) -> Result<String, String> {
        let who = address.as_str();
        let chain = self.chain.upgrade();
        let brought = match chain.filter(|_| self.asks) {
            Some(chain) => self.ask(&chain, address).await.map_err(|decision| {
                let said = decision.lines.join(" ");
                format!("{who}: the hook user_config refuses: {said}")
            })?,
            None => None,
        };
        let mut found = Vec::new();
        if brought.is_some() {
            found.push("settings by the hook user_config".to_owned());
        }
        let wrong = |mistakes: Mistakes| mistakes.to_string();
        if let Some(folder) = self.folder_of(address)
            && FolderState::of(&folder).map_err(wrong)?.is_some()
        {
            let settings = self.workshop.read_folder(&folder, address).map_err(wrong)?;
            self.distinct(address, brought.as_deref(), Some((&folder, &settings)))
                .map_err(wrong)?;
            if !settings.warnings.is_empty() {
                eprintln!("{}", settings.warnings);
            }
            found.push(format!("the folder {}", folder.display()));
        }
        Ok(match found.is_empty() {
            true => format!("{who}: no settings but those in the configuration"),
            false => format!("{who}: {}", found.join(", and ")),
        })
    }

    fn folder_of(&self, address: &Address) -> Option<PathBuf> {
        let folders = self.workshop.config.user_config.as_ref()?;
        folders.folder_of(address)
    }

    /// Makes what holds for a user. What is wrong with its folder is in the log, and nothing in it holds then.
    fn make(
        &self,
        chain: &Chain,
        address: &Address,
        folder: Option<&Path>,
        brought: Option<&Scope>,
    ) -> Option<Arc<Profile>> {
        if let Some(folder) = folder {
            let read = self.workshop.read_folder(folder, address);
            let distinct = read.and_then(|settings| {
                log(Level::Notice, &settings.warnings);
                self.distinct(address, brought, Some((folder, &settings)))
            });
            match distinct {
                Ok(distinct) => return Some(chain.make_profile(distinct)),
                Err(mistakes) => log(Level::Warn, &mistakes),
            }
        }
        // What plugins bring is known to be good.
        let distinct = brought.map(|_| self.distinct(address, brought, None));
        match distinct {
            Some(Ok(distinct)) => Some(chain.make_profile(distinct)),
            _ => chain.configured_profile(address),
        }
    }

    fn distinct(
        &self,
        address: &Address,
        brought: Option<&Scope>,
        folder: Option<(&Path, &UserSettings)>,
    ) -> Result<Distinct, Mistakes> {
        let scopes = &self.workshop.config.scopes;
        let domain = address.domain().map(str::to_lowercase);
        let domain = domain.and_then(|domain| scopes.domains.get(&domain));
        let user = scopes.users.get(&address.to_lowercase());
        let own = folder.map(|(_, settings)| &settings.scope);
        let scopes = [domain, brought, own, user];
        let scopes: Vec<&Scope> = scopes.into_iter().flatten().collect();
        let files = folder.map(|(folder, settings)| Files {
            folder,
            names: &settings.files,
        });
        distinctions::one(&self.workshop, &scopes, files)
    }

    /// What plugins bring for a user.
    async fn ask(
        self: &Arc<Users>,
        chain: &Arc<Chain>,
        address: &Address,
    ) -> Result<Option<Arc<Scope>>, Box<Decision>> {
        // Another question than whether the address is ours.
        let name = format!("settings of {}", address.to_lowercase());
        let (users, chain, address) = (self.clone(), chain.clone(), address.clone());
        let ask = || async move {
            let args = Args::Recipient(Cow::Borrowed(&address));
            let mut visit = Visit::default();
            visit.profile = chain.configured_profile(&address);
            let decision = chain.run(&mut visit, Hook::UserConfig, &args, None).await;
            let is_yes = decision.verdict == Verdict::Ok;
            let keep = kept_for(&decision.values, is_yes);
            if decision.verdict.is_denial() {
                return Err(Box::new(refusal(decision)));
            }
            if !is_yes || decision.settings.is_none() {
                return Ok((None, keep));
            }
            match users.read(decision, address).await {
                Ok(scope) => Ok((Some(Arc::new(scope)), keep)),
                Err((plugin, wrong)) => match chain.fault(Hook::UserConfig, &plugin, wrong) {
                    Some(decision) => Err(Box::new(refusal(decision))),
                    None => Ok((None, kept_for(&[], false))),
                },
            }
        };
        self.brought.about(name, None, ask).await
    }

    /// What a user has in the place of a flat file: what a plugin says, else what is in the user's folder.
    pub(super) async fn own_file(
        self: Arc<Users>,
        name: String,
        user: Address,
    ) -> Option<Vec<String>> {
        if self.asks
            && let Some(lines) = self.ask_for_file(&name, &user).await
        {
            return Some(lines);
        }
        let folder = self.folder_of(&user)?;
        let read = move || config::user_file(&folder, &name);
        let lines = tokio::task::spawn_blocking(read).await.ok()?;
        (!lines.is_empty()).then_some(lines)
    }

    async fn ask_for_file(&self, name: &str, user: &Address) -> Option<Vec<String>> {
        let chain = self.chain.upgrade()?;
        let args = Args::RecipientFile {
            address: Cow::Borrowed(user),
            name: Cow::Borrowed(name),
        };
        let mut visit = Visit::default();
        visit.profile = chain.configured_profile(user);
        let decision = chain.run(&mut visit, Hook::UserConfig, &args, None).await;
        // One that gives settings answers what it was not asked.
        let is_answer = decision.verdict == Verdict::Ok && decision.settings.is_none();
        (is_answer && !decision.values.is_empty()).then_some(decision.values)
    }

    /// Reads what a plugin brought, and tries it out; an error is the plugin, and what is wrong.
    async fn read(
        self: &Arc<Users>,
        brought: Decision,
        address: Address,
    ) -> Result<Scope, (Arc<str>, String)> {
        let plugin = brought.plugin.clone().unwrap_or_default();
        let who = address.as_str().to_owned();
        let users = self.clone();
        let read = move || {
            let text = config::settings_text(&brought.settings.unwrap_or_default())?;
            let file = format!("user_config of {}", brought.plugin.unwrap_or_default());
            let scope = users.workshop.read_user(&text, Path::new(&file), &address);
            let tried = scope.and_then(|(scope, _)| {
                users.distinct(&address, Some(&scope), None)?;
                Ok(scope)
            });
            tried.map_err(|mistakes| {
                let lines: Vec<String> = mistakes.iter().map(one_line).collect();
                lines.join("; ")
            })
        };
        let read = tokio::task::spawn_blocking(read).await;
        let read = read.unwrap_or_else(|_| Err("the settings could not be read".to_owned()));
        read.map_err(|wrong| (plugin, format!("settings of {who}: {wrong}")))
    }
}

impl Workshop {
    fn read_folder(&self, folder: &Path, address: &Address) -> Result<UserSettings, Mistakes> {
        config::read_user_folder(folder, address, &self.config, &self.definitions)
    }

    fn read_user(
        &self,
        text: &str,
        file: &Path,
        address: &Address,
    ) -> Result<(Scope, Mistakes), Mistakes> {
        let address = address.to_lowercase();
        config::parse_user(
            text,
            file,
            &address,
            &self.config.plugins,
            &self.definitions,
        )
    }
}

/// What the recipient is told.
fn refusal(decision: Decision) -> Decision {
    let (code, enhanced, text) = match (decision.verdict.is_soft(), decision.verdict.disconnects())
    {
        (true, false) => (
            451,
            EnhancedCode(4, 3, 0),
            "The settings of this recipient cannot be had now",
        ),
        (true, true) => (
            421,
            EnhancedCode(4, 3, 0),
            "The settings of this recipient cannot be had now",
        ),
        (false, _) => (550, EnhancedCode(5, 7, 1), "This recipient is refused"),
    };
    Decision {
        code: decision.code.or(Some(code)),
        enhanced: decision.enhanced.or(Some(enhanced)),
        lines: match decision.lines.is_empty() {
            true => vec![text.to_owned()],
            false => decision.lines,
        },
        ..decision
    }
}

/// Nobody is there any more who could tell.
fn not_now() -> Box<Decision> {
    Box::new(refusal(Decision {
        verdict: Verdict::DenySoft,
        ..Decision::declined()
    }))
}

fn log(level: Level, mistakes: &Mistakes) {
    for mistake in mistakes.iter() {
        let text = one_line(mistake);
        report::line(level, "", None, "user_config", format_args!("{text}"));
    }
}

/// Place and message, without the line.
fn one_line(mistake: &config::Mistake) -> String {
    let file = mistake.file.display();
    match &mistake.place {
        Some(place) => format!(
            "{file}:{}:{}: {}",
            place.line, place.column, mistake.message
        ),
        None => format!("{file}: {}", mistake.message),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
