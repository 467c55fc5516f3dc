# Stands for p0f, version 3: has seen Windows XP at one address, and nothing of any other.
#
# perl p0f.pl SOCKET ADDRESS

use strict;
use warnings;

use IO::Socket::UNIX;

my ($path, $windows) = @ARGV;
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 16) or die "$path: $!\n";
STDOUT->autoflush(1);
print "$path\n";
while (my $client = $listener->accept) {
    # A query is its magic number, 4 for IPv4, and the address in 16 bytes.
    read $client, my $query, 21;
    my $address = join '.', unpack 'x5 C4', $query;
    my ($status, $os, $flavour) = $address eq $windows ? (0x10, 'Windows', 'XP') : (0x20, '', '');
    # Magic number, status, first and last seen, count, uptime, its modulus, NAT, change of OS, distance, two matches, and texts.
    syswrite $client, pack 'L9 s C2 (a32)6', 0x50304602, $status, 1, 2, 3, 4, 5, 0, 0, 3, 0, 0, $os, $flavour, '', '', 'Ethernet', 'English';
    # The plugin asks twice, and reads once.
    1 while sysread $client, my $rest, 64;
}
