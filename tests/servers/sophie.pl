# Stands for sophie, the daemon for Sophos's scanner: finds Eicar in a file with the letters EICAR.
#
# perl sophie.pl SOCKET

use strict;
use warnings;

use IO::Socket::UNIX;

my ($path) = @ARGV;
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 16) or die "$path: $!\n";
STDOUT->autoflush(1);
print "$path\n";
while (my $client = $listener->accept) {
    my $file = readline $client // next;
    chomp $file;
    # -1 is an error; the plugin takes it for clean.
    open my $handle, '<', $file or do { print {$client} '-1'; next };
    print {$client} +(grep { /EICAR/ } <$handle>) ? '1:Eicar' : '0';
}
