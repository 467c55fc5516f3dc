package Qpsmtpd::Postfix::Constants;

# Flags for Postfix's cleanup(8), and what it answers, with Postfix's numbers (its cleanup_user.h): CLEANUP_FLAG_*, CLEANUP_STAT_*.
# %cleanup_soft and %cleanup_hard: what a status means to a client, by the constant's name.

use strict;
use warnings;

use Exporter 'import';

our $postfix_version = '3.7';

my %constant;

BEGIN {
    my $bit = 0;
    $constant{CLEANUP_FLAG_NONE} = 0;
    $constant{"CLEANUP_FLAG_$_"} = 1 << $bit++ for qw(BOUNCE FILTER HOLD DISCARD BCC_OK MAP_OK MILTER SMTP_REPLY SMTPUTF8 AUTOUTF8);
    $constant{CLEANUP_FLAG_FILTER_ALL} = $constant{CLEANUP_FLAG_FILTER} | $constant{CLEANUP_FLAG_MILTER};
    $constant{CLEANUP_FLAG_MASK_EXTERNAL} = $constant{CLEANUP_FLAG_FILTER_ALL} | $constant{CLEANUP_FLAG_BCC_OK} | $constant{CLEANUP_FLAG_MAP_OK};
    $constant{CLEANUP_FLAG_MASK_INTERNAL} = $constant{CLEANUP_FLAG_MAP_OK};
    my %status = (OK => 0, BAD => 1, WRITE => 2, SIZE => 4, CONT => 8, HOPS => 16, RCPT => 64, PROXY => 128, DEFER => 256, NOPERM => 512);
    $constant{"CLEANUP_STAT_$_"} = $status{$_} for keys %status;
}

use constant {%constant};

our %cleanup_soft = (
    CLEANUP_STAT_DEFER => 'service unavailable (#4.7.1)',
    CLEANUP_STAT_PROXY => 'queue file write error (#4.3.0)',
    CLEANUP_STAT_BAD   => 'internal protocol error (#4.3.0)',
    CLEANUP_STAT_WRITE => 'queue file write error (#4.3.0)',
);
our %cleanup_hard = (
    CLEANUP_STAT_RCPT   => 'no recipients specified (#5.1.0)',
    CLEANUP_STAT_HOPS   => 'too many hops (#5.4.6)',
    CLEANUP_STAT_SIZE   => 'message file too big (#5.3.4)',
    CLEANUP_STAT_CONT   => 'message content rejected (#5.7.1)',
    CLEANUP_STAT_NOPERM => 'operation not permitted (#5.7.1)',
);

our @EXPORT = (sort(keys %constant), qw(%cleanup_soft %cleanup_hard $postfix_version));

1;
