package QpsmtpdPackage;

# The plugins of Debian's package qpsmtpd, where `make setup` unpacked it, in Gatepost::Test. `use` ends the test file loudly where
# they are not there; in CI (CI=true) it fails.
#
# $DIR           the folder with the plugins
# $WORK          a folder for this test file
# plugin($name, %about)   a Gatepost::Test with that plugin; about as there
# file($name, $text)      writes a file into $WORK, gives its path
# answers($code)      answers connections to a Unix socket by $code->($socket) in a child; gives the path

use strict;
use warnings;

use Cwd ();
use Exporter 'import';
use File::Basename ();
use File::Path ();
use File::Temp ();
use IO::Socket::UNIX;
use POSIX ();
use Test::More;
use Gatepost::Test;

our @EXPORT = qw($DIR $WORK plugin file answers has);

my $root = Cwd::abs_path(File::Basename::dirname(__FILE__) . '/../../..');
our $DIR = "$root/.qpsmtpd/usr/share/qpsmtpd/plugins";
our $WORK = File::Temp->newdir;

if (!-d $DIR) {
    my $why = "Debian's package qpsmtpd is not unpacked below $root/.qpsmtpd: run `make setup`";
    BAIL_OUT("not tested: $why") if ($ENV{CI} // '') eq 'true';
    print STDERR "\n*** NOT TESTED: $why ***\n\n";
    plan(skip_all => $why);
}

# As in a worker.
$SIG{PIPE} = sub { };

# Several of the plugins are loaded more than once.
$SIG{__WARN__} = sub { print STDERR $_[0] unless $_[0] =~ /\ASubroutine \w+ redefined|uninitialized value .* \Q$DIR\E/ };

sub plugin {
    my ($name, %about) = @_;
    return Gatepost::Test->new(plugins => [
        {plugin => "$DIR/$name", name => $name, args => $about{args} // [], settings => $about{settings} // {}},
        map { {plugin => "$DIR/$_", name => $_} } @{$about{more} // []},
    ], scratch_dir => _scratch(), %about);
}

my $scratch;

sub _scratch { mkdir $scratch = "$WORK/scratch" unless $scratch; return $scratch }

sub file {
    my ($name, $text, $mode) = @_;
    my $path = "$WORK/$name";
    File::Path::make_path(File::Basename::dirname($path));
    open my $handle, '>', $path or die "$path: $!";
    print {$handle} $text;
    close $handle or die "$path: $!";
    chmod $mode, $path if $mode;
    return $path;
}

# Whether a module is installed; loud where it is not, since `make setup` installs it.
sub has {
    my $module = shift;
    return 1 if eval "require $module; 1";
    fail("$module is installed (make setup)") if ($ENV{CI} // '') eq 'true';
    print STDERR "\n*** NOT TESTED: $module is not installed: run `make setup` ***\n\n";
    return 0;
}

my @children;
my $sockets = 0;

sub answers {
    my $code = shift;
    my $path = "$WORK/socket" . ++$sockets;
    my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 1) or die "$path: $!";
    chmod 0777, $path;
    my $child = fork // die "fork: $!";
    if (!$child) {
        # Nobody waits for the end of what it would write.
        open STDOUT, '>', '/dev/null';
        alarm 30;
        $SIG{PIPE} = 'IGNORE';
        while (1) {
            my $socket = $listener->accept or next;
            $code->($socket);
            close $socket;
        }
    }
    push @children, $child;
    return $path;
}

END { my $code = $?; kill KILL => @children if @children; $? = $code }

1;
