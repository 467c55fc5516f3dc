# Makes a database of GeoIP's "city" edition in which one network is in Berlin and every other address nowhere.
#
# perl geoip.pl FILE NETWORK LENGTH

use strict;
use warnings;

use Socket qw(inet_aton);

my ($file, $network, $length) = @ARGV;
my @bits = split //, substr unpack('B32', inet_aton($network)), 0, $length;
# A node is two numbers of 3 bytes, for a bit that is 0 and one that is 1: the next node, or behind the last of them a record.
my $nowhere = @bits;
my $berlin = $nowhere + 1;
my $nodes = '';
for my $at (0 .. $#bits) {
    my @next = ($nowhere, $nowhere);
    $next[$bits[$at]] = $at == $#bits ? $berlin : $at + 1;
    $nodes .= join '', map { substr pack('V', $_), 0, 3 } @next;
}
# Number of the country (Germany's), region, city and postal code, latitude and longitude from -180 in steps of 0.0001.
my $record = pack 'C Z* Z* Z*', 56, '16', 'Berlin', '10115';
$record .= join '', map { substr pack('V', ($_ + 180) * 10_000), 0, 3 } 52.5, 13.4;
open my $handle, '>:raw', $file or die "$file: $!\n";
# Behind a mark the edition and the number of nodes.
print {$handle} $nodes, "\0", $record, "\xff\xff\xff", "\2", substr pack('V', scalar @bits), 0, 3;
close $handle or die "$file: $!\n";
print "$file\n";
