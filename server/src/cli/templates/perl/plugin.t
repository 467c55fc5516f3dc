# The plugin alone, without a server: prove NAME.t
use strict;
use warnings;

use FindBin;
use Test::More;
use Gatepost::Test;

my $test = Gatepost::Test->new(plugin => "$FindBin::RealBin/NAME.pl", settings => {addresses => ['nobody@example.org']});
is $test->hook(rcpt => address => 'nobody@example.org')->verdict, 'deny', 'who is listed is refused';
is $test->hook(rcpt => address => 'bob@example.org')->disposition, 'skip', 'others are not';
done_testing;
