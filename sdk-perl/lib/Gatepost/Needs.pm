package Gatepost::Needs;

# Which session fields and notes a plugin is to be sent, from the words in its file: what is not sent need not be
# encoded, carried and decoded for every command of every client. A plugin can only get at a field by a method whose
# name is one of these words. Where its code is not all in the file (a module of the site's own, another plugin as
# parent, text that is evaluated) it is sent everything.
#
# of_file($path) -> {fields => {NAME => 1}, notes => list of names, or ['*'], environment => whether it or its children may look into
#                    that, guarded => whether it may do something to the process that others would feel, as_written => whether it
#                    wants to see MAIL and RCPT as the client wrote them, in notes}

use strict;
use warnings;

use Gatepost::Hooks;

my %words = (
    remote_host   => qr/\bremote_(?:host|info)\b/,
    early_talker  => qr/\bearly_talker\b/,
    relay_client  => qr/\b(?:relay_client|is_immune)\b/,
    immune        => qr/\b(?:is_immune|immune)\b/,
    whitelisted   => qr/\b(?:is_immune|whitelist(?:ed|host|sender))\b/,
    naughty       => qr/\b(?:\w*naughty\w*|get_reject|store_deferred_reject)\b/,
    karma         => qr/karma/,
    score         => qr/->\s*score\b/,
    authenticated => qr/\b(?:auth_user|authenticated)\b/,
    tls_version   => qr/\btls_(?:version|enabled)\b/,
    auth_results  => qr/\b(?:store_auth_results|authentication_results)\b/,
    sender        => qr/sender/,
    recipients    => qr/recipient/,
    header        => qr/header/,
    (map { $_ => qr/\b(?:body_\w+|dup_body_fh|data_size)\b/ } qw(size header_end body_start)),
);

# Modules that know nothing of Gatepost's objects.
my $harmless = qr/\A(?:
    strict|warnings|utf8|vars|constant|lib|integer|bytes|feature|overload|re|[0-9v][0-9.]* |
    POSIX|Carp|Socket|IO::\w+(?:::\w+)*|File::\w+(?:::\w+)*|Time::\w+|List::Util|Scalar::Util|Digest::\w+|MIME::\w+|
    Net::(?:DNS|IP|LDAP|SMTP)|NetAddr::IP|Fcntl|Errno|Encode|Qpsmtpd::(?:Constants|DSN)
)\z/x;

sub of_file {
    my $path = shift;
    open my $handle, '<', $path or return _all();
    my $text = do { local $/; <$handle> };
    return _of($text);
}

sub _of {
    my $text = shift;
    $text =~ s/^__(?:END|DATA)__\b.*//ms;
    $text =~ s/^=[a-z].*?(?:^=cut\b[^\n]*|\z)//gms;
    $text =~ s/^\s*#[^\n]*//gm;
    # The names of two hooks look like the name of a field.
    $text =~ s/\b(?:hook_)?data_(?:headers_end|post_headers)\b//g;
    my $as_written = scalar $text =~ /\benvelope_(?:from|rcpt)\b/;
    return _all($as_written) if $text =~ /\bisa_plugin\b|\beval\b(?!\s*\{)|^\s*do\b(?!\s*\{)/m;
    return _all($as_written) if grep { $_ !~ $harmless } $text =~ /\b(?:use|require)\s+([A-Za-z0-9_:.]+)\s*(?:[;(\[}'"0-9\\]|qw\b|if\b|or\b|\z)/g;
    return _all($as_written) if $text =~ /\brequire\s*[\$("']/;

    my $children = qr/`|\bqx\b|\b(?:system|exec|fork|open2|open3)\b|\|-|-\||["']\s*\||\|\s*["']/;
    my $environment = $text =~ /\bENV\b|$children/;
    my %fields = map { $_ => 1 }
        $environment ? qw(remote_ip remote_host remote_port local_ip local_port relay_client) : (),
        $text =~ /\bpre_connection\b|\bpre-connection\b/ ? qw(remote_ip remote_port local_ip local_port) : (),
        grep { my $words = $words{$_} // qr/\b$_\b/; $text =~ $words } Gatepost::Hooks::all_fields();
    # What the base class reads on behalf of a plugin that has no notes of its own.
    my @notes = (
        $text =~ /\b(?:get_reject|store_deferred_reject)\b/ ? 'naughty_reject_type' : (),
    );
    return {
        fields => \%fields, notes => $text =~ /\bnotes\b/ ? ['*'] : \@notes,
        environment => $environment, guarded => scalar $text =~ /\bchdir\b|\bCH?LD\b|\bfork\b/, as_written => $as_written,
    };
}

sub _all {
    my $as_written = shift;
    return {fields => {map { $_ => 1 } Gatepost::Hooks::all_fields()}, notes => ['*'], environment => 1, guarded => 1, as_written => $as_written};
}

1;
