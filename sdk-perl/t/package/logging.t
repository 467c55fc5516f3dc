use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use Test::More;
use QpsmtpdPackage;
use Qpsmtpd::Constants;

# The logging plugins of Debian's package, with another plugin whose lines they are told.

sub with {
    my ($name, @args) = @_;
    return Gatepost::Test->new(
        plugins => [
            {plugin => "$DIR/logging/$name", name => "logging/$name", args => \@args},
            {plugin => "$DIR/badmailfrom", name => 'badmailfrom'},
        ],
        config => {badmailfrom => ['@spam.example']}, scratch_dir => "$WORK",
    );
}

{
    my @warned;
    local $SIG{__WARN__} = sub { push @warned, $_[0] };
    my $test = with(warn => 7);
    @warned = ();
    $test->hook(mail => address => 'a@spam.example');
    like join('', @warned), qr/\A[0-9]+ \(mail\) badmailfrom: .*fail/s, 'logging/warn: a line';
    $test = with(warn => 0);
    @warned = ();
    $test->hook(mail => address => 'a@spam.example');
    is join('', @warned), '', 'logging/warn: not at that level';
}
{
    my $test = with(file => 'loglevel', 'LOGDEBUG', "$WORK/log");
    $test->hook('connect');
    $test->hook(mail => address => 'a@spam.example');
    $test->hook('disconnect');
    open my $handle, '<', "$WORK/log" or die "$WORK/log: $!";
    like do { local $/; <$handle> }, qr/: fail$/m, 'logging/file: a line';
}
{
    my @warned;
    local $SIG{__WARN__} = sub { push @warned, $_[0] };
    for (['LOGERROR', qr/\A\z/, 'little'], ['LOGINFO', qr/badmailfrom plugin: fail/, 'all of what is refused']) {
        my ($reject, $expected, $what) = @$_;
        my $test = with(adaptive => accept => 'LOGERROR', reject => $reject);
        @warned = ();
        $test->hook(mail => address => 'a@spam.example');
        $test->hook('deny', plugin => 'badmailfrom', verdict => 'deny', message => 'no');
        $test->hook('reset_transaction');
        like join('', grep { /badmailfrom/ } @warned), $expected, "logging/adaptive: $what";
    }
}
ok with('devnull'), 'logging/devnull: says nothing';
ok with('syslog'), 'logging/syslog: loads';

done_testing;
