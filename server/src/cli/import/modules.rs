//! The Perl modules that plugin files use, and which of them this machine has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::Regex;

/// How long Perl may take to load all modules.
const PATIENCE: Duration = Duration::from_secs(20);

/// Debian's packages of the modules that plugins of qpsmtpd use, by the beginning of the module's name.
const PACKAGES: &[(&str, &str)] = &[
    ("Apache2::", "libapache2-mod-perl2"),
    ("APR::", "libapache2-mod-perl2"),
    ("BSD::Resource", "libbsd-resource-perl"),
    ("CDB_File", "libcdb-file-perl"),
    ("ClamAV::Client", "libclamav-client-perl"),
    ("DBD::mysql", "libdbd-mysql-perl"),
    ("DBI", "libdbi-perl"),
    ("Date::Format", "libtimedate-perl"),
    ("Date::Parse", "libtimedate-perl"),
    ("File::NFSLock", "libfile-nfslock-perl"),
    ("Geo::IP", "libgeo-ip-perl"),
    ("GeoIP2::", "libgeoip2-perl"),
    ("IO::Socket::SSL", "libio-socket-ssl-perl"),
    ("LWP", "libwww-perl"),
    ("Mail::Address", "libmailtools-perl"),
    ("Mail::DKIM", "libmail-dkim-perl"),
    ("Mail::DMARC", "libmail-dmarc-perl"),
    ("Mail::Header", "libmailtools-perl"),
    ("Mail::Internet", "libmailtools-perl"),
    ("Mail::SPF", "libmail-spf-perl"),
    ("Net::DNS", "libnet-dns-perl"),
    ("Net::IMAP::Simple", "libnet-imap-simple-perl"),
    ("Net::IP", "libnet-ip-perl"),
    ("Net::LDAP", "libnet-ldap-perl"),
    ("NetAddr::IP", "libnetaddr-ip-perl"),
    ("Redis", "libredis-perl"),
];

/// Loads each module that it is given, and says of each line by line that it begins, and whether it is there. What modules print goes elsewhere.
const ASK: &str = r#"
open my $out, '>&', \*STDOUT or die;
open STDOUT, '>&', \*STDERR;
for my $module (@ARGV) {
    (my $file = "$module.pm") =~ s{::}{/}g;
    my $found = eval { local $SIG{__DIE__}; require $file; 1 };
    syswrite $out, ($found ? '+' : '-') . "$module\n";
}
"#;

/// The package of Debian that has a module, or how to find it.
pub fn package(module: &str) -> String {
    if module.starts_with("Qpsmtpd::") {
        return "a part of qpsmtpd that the Perl SDK does not have".to_owned();
    }
    let names = |start: &&(&str, &str)| {
        module == start.0
            || module
                .strip_prefix(start.0)
                .is_some_and(|rest| start.0.ends_with("::") || rest.starts_with("::"))
    };
    match PACKAGES.iter().find(names) {
        Some((_, package)) => (*package).to_owned(),
        None => format!(
            "`apt-file search {}.pm` may know",
            module.replace("::", "/")
        ),
    }
}

/// The modules that a plugin's text loads, pragmas aside: by `use` and `require`, also in an `eval`. Comments, POD and what stands behind `__END__` do not count.
pub fn used(text: &str) -> BTreeSet<String> {
    // At the beginning of a statement, or of a text that `eval` gets.
    static LOADS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?:^|[;{}"']|\beval\b.?)\s*(?:use|require)\s+([A-Za-z_]\w*(?:::\w+)*)\s*(?:[;"'(}0-9]|q|$)"#)
            .expect("the pattern is constant")
    });
    let mut modules = BTreeSet::new();
    let mut in_pod = false;
    for line in text.lines() {
        if line.starts_with("__END__") || line.starts_with("__DATA__") {
            break;
        }
        if line.starts_with('=') {
            in_pod = !line.starts_with("=cut");
            continue;
        }
        if in_pod || line.trim_start().starts_with('#') {
            continue;
        }
        for found in LOADS.captures_iter(line) {
            let name = &found[1];
            // Pragmas are written small, by custom; everybody has them.
            if name.starts_with(|first: char| first.is_ascii_uppercase()) {
                modules.insert(name.to_owned());
            }
        }
    }
    modules
}

/// Which of these modules Perl has; one is missing from the answer where Perl could not be asked about it in time. `sdk` is the folder of the Perl SDK.
pub fn present(
    modules: &BTreeSet<String>,
    sdk: Option<&Path>,
    more: Option<&Path>,
) -> BTreeMap<String, bool> {
    let mut answer = BTreeMap::new();
    if modules.is_empty() {
        return answer;
    }
    let mut command = Command::new("perl");
    for folder in sdk
        .map(|sdk| sdk.join("lib"))
        .iter()
        .map(AsRef::as_ref)
        .chain(more)
    {
        command.arg("-I").arg(folder);
    }
    command
        .arg("-e")
        .arg(ASK)
        .args(modules)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    for line in said(&mut command).unwrap_or_default().lines() {
        if let Some((mark, module)) = line.split_at_checked(1) {
            answer.insert(module.to_owned(), mark == "+");
        }
    }
    answer
}

/// What a program prints, until it ends or takes too long.
fn said(command: &mut Command) -> std::io::Result<String> {
    // A file, since a pipe would have to be read while the time is watched.
    let mut file = tempfile::NamedTempFile::new()?;
    let mut child = command.stdout(file.reopen()?).spawn()?;
    let begin = Instant::now();
    while child.try_wait()?.is_none() {
        if begin.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut text = String::new();
    std::io::Read::read_to_string(file.as_file_mut(), &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_a_plugin() {
        let text = "use strict;\nuse Net::IP qw(:PROC);\n  require File::NFSLock;\n#use DBI;\neval 'use Mail::SPF';\nuse POSIX ();\n\
            eval { require Redis };\nuse IO::Socket::SSL 0.98;\nlog('please use Sense and Sensibility');\nuse 5.010;\n\
            =head1\n\nuse Pod::Only;\n\n=cut\n\neval \"use BSD::getloadavg;\";\nuse Time::HiRes qw(time);\n__END__\nuse Never;\n";
        let expected = [
            "BSD::getloadavg",
            "File::NFSLock",
            "IO::Socket::SSL",
            "Mail::SPF",
            "Net::IP",
            "POSIX",
            "Redis",
            "Time::HiRes",
        ];
        assert_eq!(used(text), expected.map(str::to_owned).into());
    }

    #[test]
    fn packages_by_the_beginning_of_a_name() {
        for (module, said) in [
            ("Mail::SPF", "libmail-spf-perl"),
            ("Mail::DKIM::Verifier", "libmail-dkim-perl"),
            ("Net::IP", "libnet-ip-perl"),
            ("Apache2::Log", "libapache2-mod-perl2"),
            (
                "Qpsmtpd::Nothing",
                "a part of qpsmtpd that the Perl SDK does not have",
            ),
            ("Net::IPv4", "`apt-file search Net/IPv4.pm` may know"),
        ] {
            assert_eq!(package(module), said);
        }
    }

    #[test]
    fn perl_is_asked_once() {
        let modules = ["File::Temp", "No::Such::Module"].map(str::to_owned).into();
        let expected = [("File::Temp", true), ("No::Such::Module", false)];
        assert_eq!(
            present(&modules, None, None),
            expected
                .map(|(name, there)| (name.to_owned(), there))
                .into()
        );
    }
}
