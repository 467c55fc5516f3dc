package Qpsmtpd::Constants;

# Return codes of hooks and log levels, with qpsmtpd's numbers: plugins store them, compare them and print them.
#
# return_code($x), log_level($x): number -> name, name -> number, else undef. Only whole numbers match.

use strict;
use warnings;

use Exporter 'import';

my (%return_code, %log_level);

BEGIN {
    %return_code = (
        OK              => 900, DENY                => 901, DENYSOFT => 902, DENY_DISCONNECT => 903,
        DENYHARD        => 903, DENYSOFT_DISCONNECT => 904, DECLINED => 909, DONE            => 910,
    );
    %log_level = (
        LOGDEBUG => 7, LOGINFO => 6, LOGNOTICE => 5, LOGWARN  => 4,
        LOGERROR => 3, LOGCRIT => 2, LOGALERT  => 1, LOGEMERG => 0, LOGRADAR => 0,
    );
}

use constant {%return_code, %log_level};

our @EXPORT = (qw(return_code log_level), sort(keys %return_code), sort(keys %log_level));

# The other name of 903 and of 0 is an alias; the daemon's own words are these.
my %code_name  = reverse %return_code;
my %level_name = reverse %log_level;
$code_name{+DENY_DISCONNECT} = 'DENY_DISCONNECT';
$level_name{+LOGEMERG}       = 'LOGEMERG';

sub return_code {
    my $x = shift // return;
    return $x =~ /\A[0-9]+\z/ ? $code_name{$x} : $return_code{$x};
}

sub log_level {
    my $x = shift // return;
    return $x =~ /\A[0-9]+\z/ ? $level_name{$x} : $log_level{$x};
}

# The protocol's words for the same.
my %verdict = map { $_ => lc $code_name{$_} } keys %code_name;
my %verdict_code = reverse %verdict;
# What qpsmtpd has no code for. A plugin returns them by Qpsmtpd::Plugin's discard, quarantine and hold.
our %DIVERSION = (discard => 920, quarantine => 921, hold => 922);
$verdict{$DIVERSION{$_}} = $_ for keys %DIVERSION;
%verdict_code = (%verdict_code, %DIVERSION);
# OK in the hook queue, and what is said of success to a sender who asked for it. Likewise by delivered, relayed and told.
our %SUCCESS = (delivered => 930, relayed => 931, none => 932);
my %success = reverse %SUCCESS;
$verdict{$_} = 'ok' for keys %success;

my @severity = qw(emerg alert crit error warn notice info debug);

sub success      { $success{$_[0]} }
sub verdict      { $verdict{$_[0]} }
sub verdict_code { $verdict_code{$_[0] // ''} }
my %level = map { $severity[$_] => $_ } 0 .. $#severity;

sub level        { $level{$_[0] // ''} // LOGINFO }
sub severity     { $severity[$_[0] =~ /\A[0-7]\z/ ? $_[0] : LOGINFO] }

1;
