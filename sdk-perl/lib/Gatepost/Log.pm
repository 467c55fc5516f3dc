package Gatepost::Log;

# Where log lines of plugins go. In a hook the last line that says what a plugin found (pass, fail, skip or error as
# its first word, qpsmtpd's convention) is held back: it becomes the disposition and message of the plugin's result,
# and the core prints it, once, with the policy applied. All others go out as they are, and so do lines at LOGDEBUG.
#
# $held is the line held back in the turn that is going on: {disposition, message, line}, or undef.

use strict;
use warnings;

use Qpsmtpd::Constants ();
use Gatepost::Changes;
use Gatepost::Core;

our $held;

my $LIMIT = 16_384;

sub line {
    my ($plugin, $level, $message) = @_;
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

sub _send {
    my ($plugin, $level, $message) = @_;
    return $Gatepost::Core::backend->log(Qpsmtpd::Constants::severity($level), $plugin, $message)
        if $Gatepost::Core::backend;
    print STDERR defined $plugin ? "$plugin: $message\n" : "$message\n";
    return;
}

1;
