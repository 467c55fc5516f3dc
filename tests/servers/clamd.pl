# Stands for ClamAV's clamd: finds Eicar in a file with the letters EICAR. With a USER it becomes that one, as the real one does; then it
# must be started by root.
#
# perl clamd.pl SOCKET [USER]

use strict;
use warnings;

use IO::Socket::UNIX;

my ($path, $name) = @ARGV;
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 16) or die "$path: $!\n";
if (defined $name) {
    my (undef, undef, $user, $group) = getpwnam $name or die "there is no user $name\n";
    ($(, $)) = ($group, "$group $group");
    ($<, $>) = ($user, $user);
    die "cannot become $name: $!\n" if $> != $user;
}
STDOUT->autoflush(1);
print "$path\n";
while (my $client = $listener->accept) {
    my $command = readline $client // next;
    chomp $command;
    my $answer = $command eq 'PING' ? 'PONG'
        : $command eq 'VERSION' ? 'ClamAV 1.0.7/27477/Sun Nov 22 09:31:46 2026'
        : $command =~ /\ASCAN (.+)/ ? "$1: " . scan($1)
        : 'UNKNOWN COMMAND';
    print {$client} "$answer\n";
}

sub scan {
    my $file = shift;
    open my $handle, '<', $file or return "File path check failure: $!. ERROR";
    return +(grep { /EICAR/ } <$handle>) ? 'Eicar-Signature FOUND' : 'OK';
}
