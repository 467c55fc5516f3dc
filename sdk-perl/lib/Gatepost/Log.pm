package Gatepost::Log;

# Where log lines of plugins go. In a hook the last line that says what a plugin found (pass, fail, skip or error as
# its first word, qpsmtpd's convention) is held back: it becomes the disposition and message of the plugin's result,
# and the core prints it, once, with the policy applied. All others go out as they are, and so do lines at LOGDEBUG.
#
# $held is the line held back in the turn that is going on: {disposition, message, line}, or undef.

use strict;
use warnings;

use Qpsmtpd::Constants;
use Gatepost::Changes;
use Gatepost::Core;

our $held;

# Hooks `logging` of plugins in this process are told every line that it logs. What they log themselves is lost, as in qpsmtpd: it
# would come back to them.
our $telling;

my $LIMIT = 16_384;

sub line {
    my ($plugin, $level, $message) = @_;
    return if $telling;
    _tell($plugin, $level, $message) if $Qpsmtpd::hooks->{logging} && @{$Qpsmtpd::hooks->{logging}};
    $message = substr($message, 0, $LIMIT) . ' …' if length $message > $LIMIT;
    $message =~ s/\s+\z//;
    if ($Gatepost::Changes::list && $level <= 6 && $message =~ /\A(pass|fail|skip|error)(?:\s*[,:]\s*|\z)(.*)/s) {
        _send(@{$held->{line}}) if $held;
        $held = {disposition => $1, message => $2, line => [$plugin, $level, $message]};
        return;
    }
    _send($plugin, $level, $message);
    return;
}

sub _tell {
    my ($plugin, $level, $message) = @_;
    local $telling = 1;
    my ($qp, $hook) = ($Qpsmtpd::Plugin::current_qp, $Qpsmtpd::Plugin::current_hook);
    for my $entry (@{$Qpsmtpd::hooks->{logging}}) {
        my ($rc) = eval { $entry->{code}->($qp, $qp ? $qp->transaction : {}, $level, $hook, $plugin, $message) };
        _send($entry->{name}, LOGERROR, "died in logging: $@") if $@;
        last if defined $rc && $rc ne DECLINED;
    }
    return;
}

sub _send {
    my ($plugin, $level, $message) = @_;
    return $Gatepost::Core::backend->log(Qpsmtpd::Constants::severity($level), $plugin, $message)
        if $Gatepost::Core::backend;
    print STDERR defined $plugin ? "$plugin: $message\n" : "$message\n";
    return;
}

1;
