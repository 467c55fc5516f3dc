package Gatepost::Log;

# Where log lines of plugins go. In a hook the last line that says what a plugin found (pass, fail, skip or error as
# its first word, qpsmtpd's convention) is held back: it becomes the disposition and message of the plugin's result,
# and the core prints it, once, with the policy applied. All others go out as they are, and so do lines at LOGDEBUG.
#
# Hooks `logging` of plugins in this process are told every line that it logs, but for those held back: of these the core has the line,
# and tells it with its own and those of other processes, by the event `log`.
#
# line($plugin or undef, $level, @message)
# told($level, $hook, $plugin, @message)   tells a line that the core has
#
# $held is the line held back in the turn that is going on: {disposition, message, line}, or undef.

use strict;
use warnings;

use Qpsmtpd::Constants;
use Gatepost::Changes;
use Gatepost::Core;
use Gatepost::Loader;

our $held;

# What the plugins that are told log themselves is lost, as in qpsmtpd: it would come back to them.
our $telling;

my $LIMIT = 16_384;

sub line {
    my ($plugin, $level, @message) = @_;
    return if $telling;
    my $text = join ' ', @message;
    $text = substr($text, 0, $LIMIT) . ' …' if length $text > $LIMIT;
    $text =~ s/\s+\z//;
    if ($Gatepost::Changes::list && $level <= 6 && $text =~ /\A(pass|fail|skip|error)(?:\s*[,:]\s*|\z)(.*)/s) {
        _send(@{$held->{line}}) if $held;
        my @line = ($plugin, $level, $text, \@message);
        $held = {disposition => $1, message => $2, line => \@line};
        return if _core_tells();
        _tell(@line);
        pop @line;
        return;
    }
    _send($plugin, $level, $text, \@message);
    return;
}

sub _core_tells { my $backend = $Gatepost::Core::backend; return $backend && $backend->can('tells_lines') }

sub _has_listeners { my $all = $Qpsmtpd::hooks->{logging}; return $all && @$all }

# Without a list of what was said, it was told already.
sub _tell {
    my ($plugin, $level, undef, $message) = @_;
    told($level, $Qpsmtpd::Plugin::current_hook, $plugin, @$message) if $message && _has_listeners();
    return;
}

sub told {
    my ($level, $hook, $plugin, @message) = @_;
    local $telling = 1;
    my $qp = $Qpsmtpd::Plugin::current_qp;
    $plugin = Gatepost::Loader::package_name($plugin) if defined $plugin;
    for my $entry (@{$Qpsmtpd::hooks->{logging}}) {
        my ($rc) = eval { $entry->{code}->($qp, $qp ? $qp->transaction : {}, $level, $hook, $plugin, @message) };
        _write($entry->{name}, LOGERROR, "died in logging: $@") if $@;
        last if defined $rc && $rc ne DECLINED;
    }
    return;
}

sub _send {
    my ($plugin, $level, $text, $message) = @_;
    _tell($plugin, $level, $text, $message);
    _write($plugin, $level, $text);
    return;
}

sub _write {
    my ($plugin, $level, $text) = @_;
    return $Gatepost::Core::backend->log(Qpsmtpd::Constants::severity($level), $plugin, $text, _has_listeners() ? 1 : undef)
        if $Gatepost::Core::backend;
    print STDERR defined $plugin ? "$plugin: $text\n" : "$text\n";
    return;
}

1;
