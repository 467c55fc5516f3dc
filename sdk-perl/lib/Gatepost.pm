package Gatepost;

# Gatepost's Perl SDK: qpsmtpd's plugin API over Gatepost's plugin protocol. The program is gatepost-perl; the test
# kit for authors is Gatepost::Test.

use strict;
use warnings;

our $VERSION = '0.1.0';

1;
