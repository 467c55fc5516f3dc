# Stands for the credential validation module behind auth_cvm_unix_local: knows one user by one password.
#
# perl cvm.pl SOCKET USER HOST PASSWORD

use strict;
use warnings;

use IO::Socket::UNIX;

my ($path, @known) = @ARGV;
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 16) or die "$path: $!\n";
STDOUT->autoflush(1);
print "$path\n";
while (my $client = $listener->accept) {
    # A query: its version, then user, host and password, each with a zero behind it; it ends where the plugin shuts down.
    my $query = do { local $/; <$client> };
    my $code = $query eq "\1" . join("\0", @known) . "\0\0" ? 0 : 100;
    print {$client} chr $code;
}
