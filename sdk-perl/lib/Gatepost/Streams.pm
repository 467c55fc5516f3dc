package Gatepost::Streams;

# Standard input and output of a process with plugins. In qpsmtpd they were the client.
#
# STDIN is a pipe that nobody writes to: select() finds nothing. A plugin that waits for the client to speak by IO::Select->can_read, with
# STDIN alone in the set, has the core look at the client (Gatepost::Core::client_spoke), where the client has to be silent; elsewhere it
# finds nothing. Reading STDIN finds its end at once. Descriptor 0 is /dev/null, which children may read to its end. What is printed to STDOUT is a line of the log, with the
# place; what children print comes by descriptor 1, which the core reads too.

use strict;
use warnings;

use IO::Handle;
use IO::Select;
use Gatepost::Core;
use Gatepost::Host;
use Gatepost::Log;
use Qpsmtpd::Constants;

my $silence;

# The process that is a worker, and no child of a plugin's.
our $pid = $$;

sub set_up {
    pipe my $input, $silence or die "pipe: $!\n";
    close STDIN;
    # The lowest descriptor that is free is 0.
    open my $null, '<', '/dev/null' or die "/dev/null: $!\n";
    tie *STDIN, 'Gatepost::Streams::Input', $input, $null;
    STDOUT->autoflush(1);
    tie *STDOUT, 'Gatepost::Streams::Output';
    _listen();
    return;
}

sub _listen {
    my $can_read = \&IO::Select::can_read;
    no warnings 'redefine';
    *IO::Select::can_read = sub {
        my ($set, $seconds) = @_;
        my $client = $$ == $pid && $set->count == 1 ? $set->exists(\*STDIN) : undef;
        goto &$can_read unless defined $client && defined $seconds && Gatepost::Host::running_plugin();
        my $spoke = eval { Gatepost::Core::client_spoke($seconds) // 0 };
        return $spoke ? $client : () if defined $spoke;
        # The hook was cancelled.
        die $@ unless ref $@ && $@->code eq 'not_found';
        goto &$can_read;
    };
    return;
}

# What a plugin does with a stream that is not for it.
sub say_so {
    my ($level, $what) = @_;
    # The plugin's own line: print may be called by one of its modules.
    my $depth = 1;
    my ($package, $file, $line) = caller $depth;
    ($package, $file, $line) = caller ++$depth while ($package // '') =~ /\AGatepost::/;
    my $name = Gatepost::Host::running_plugin();
    Gatepost::Log::line($name, $level, $what . (defined $file ? " at $file line $line" : ''));
    return;
}

package Gatepost::Streams::Input;

use Qpsmtpd::Constants;

sub TIEHANDLE { my ($class, $input, $null) = @_; return bless {input => $input, null => $null}, $class }
sub FILENO    { fileno $_[0]{input} }
sub BINMODE   { 1 }
sub EOF       { 1 }
sub READLINE  { Gatepost::Streams::say_so(LOGWARN, 'reads standard input, where no client is'); return }
sub READ      { Gatepost::Streams::say_so(LOGWARN, 'reads standard input, where no client is'); return 0 }
sub GETC      { goto &READLINE }
sub CLOSE     { 1 }

# A plugin's child makes it something else.
sub OPEN { my ($self, $mode, @rest) = @_; untie *STDIN; return @rest ? open STDIN, $mode, $rest[0] : open STDIN, $mode }

package Gatepost::Streams::Output;

use Qpsmtpd::Constants;

sub TIEHANDLE { return bless {}, $_[0] }
sub FILENO    { 1 }
sub BINMODE   { 1 }
sub CLOSE     { 1 }
sub WRITE     { my ($self, $text, $length, $offset) = @_; $self->PRINT(substr $text, $offset // 0, $length // length $text); return $length // length $text }
sub PRINTF    { my ($self, $format, @values) = @_; return $self->PRINT(sprintf $format, @values) }

sub PRINT {
    my ($self, @texts) = @_;
    my $text = join $, // '', @texts;
    # A plugin's child writes for whoever reads its output.
    return _write_all($text . ($\ // '')) if $$ != $Gatepost::Streams::pid;
    $text =~ s/\s+\z//;
    Gatepost::Streams::say_so(LOGNOTICE, "printed to standard output: $_") for split /\n/, $text;
    return 1;
}

sub _write_all {
    my $text = shift;
    open my $output, '>&', 1 or return;
    return print {$output} $text;
}

sub OPEN { my ($self, $mode, @rest) = @_; untie *STDOUT; return @rest ? open STDOUT, $mode, $rest[0] : open STDOUT, $mode }

1;
