package Qpsmtpd;

# The name under which plugins ask for the daemon's version. The classes are in Qpsmtpd/.

use strict;
use warnings;

use Gatepost;

our $VERSION = $Gatepost::VERSION;

sub version { $VERSION }

1;
