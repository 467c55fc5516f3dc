# Stands for Postfix's cleanup(8): keeps each message as a file in a folder, a line for a record, its letter in front. One with the header
# field `Subject: big` is too big for it.
#
# perl cleanup.pl SOCKET FOLDER

use strict;
use warnings;

use File::Path ();
use IO::Socket::UNIX;

my ($path, $folder) = @ARGV;
File::Path::make_path($folder);
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 16) or die "$path: $!\n";
STDOUT->autoflush(1);
print "$path\n";
my $number = 0;
while (my $client = $listener->accept) {
    my $id = sprintf '4cB%03X', ++$number;
    $client->autoflush(1);
    print {$client} "queue_id\0$id\0\0";
    my @lines = attributes($client);
    my ($letter, $too_big) = ('', 0);
    while ($letter ne 'E') {
        $letter = bytes($client, 1);
        my $data = bytes($client, length_of($client));
        $too_big ||= $letter eq 'N' && $data eq 'Subject: big';
        push @lines, "$letter $data" if $letter ne 'T';
    }
    if (!$too_big) {
        open my $file, '>', "$folder/$id" or die "$folder/$id: $!\n";
        print {$file} map { s/ ?\z/\r\n/r } @lines;
        close $file or die "$folder/$id: $!\n";
    }
    # Status 4 is CLEANUP_STAT_SIZE.
    print {$client} join "\0", $too_big ? (status => 4, reason => 'message is too big') : (status => 0, reason => ''), '', '';
}

sub attributes {
    my $client = shift;
    local $/ = "\0";
    my @lines;
    while (defined(my $name = readline $client)) {
        chomp $name;
        return @lines if $name eq '';
        chomp(my $value = readline $client);
        push @lines, "$name $value";
    }
    die "no end of attributes\n";
}

sub bytes {
    my ($client, $wanted) = @_;
    (read $client, my $data, $wanted) == $wanted or die "no end of records\n";
    return $data;
}

# Seven bits a byte, the lowest first; the last has no eighth.
sub length_of {
    my $client = shift;
    my ($length, $shift) = (0, 0);
    while (1) {
        my $byte = ord bytes($client, 1);
        $length |= ($byte & 0x7f) << $shift;
        return $length if $byte < 0x80;
        $shift += 7;
    }
}
