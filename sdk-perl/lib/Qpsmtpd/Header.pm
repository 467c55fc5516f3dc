package Qpsmtpd::Header;

# The header block of a message, with the methods of Mail::Header that plugins use. Every edit is made here, for the
# plugins of this process to see, and becomes a change, for the core: the bytes of the other fields stay as they were
# received. Lines end in LF in all that is given out. Field values keep their folding and end in "\n", as ever.
#
# new(\@lines)    header lines, folded ones in one text, or nothing
# load($bytes)    the block as the core has it; parsed when somebody looks

use strict;
use warnings;

use Gatepost::Changes;

sub new {
    my ($class, $lines) = @_;
    my $self = bless {_lines => []}, $class;
    $self->{_lines} = [map { my $line = $_; $line =~ s/\r?\n?\z/\n/; $line } @$lines] if ref $lines eq 'ARRAY';
    return $self;
}

sub load {
    my ($self, $bytes) = @_;
    $self->{_bytes} = $bytes;
    return $self;
}

sub _lines {
    my $self = shift;
    if (defined(my $bytes = delete $self->{_bytes})) {
        $bytes =~ s/\r\n/\n/g;
        $bytes .= "\n" if $bytes ne '' && $bytes !~ /\n\z/;
        $self->{_lines} = [$bytes =~ /([^\n]*\n(?:[ \t][^\n]*\n)*)/g];
    }
    return $self->{_lines};
}

sub _tag  { $_[0] =~ /\A([^\s:]+)[ \t]*:/ ? lc $1 : '' }
sub _name { my $tag = shift; $tag =~ s/:\s*\z//; return $tag }

# A line that does not start with white space would end the field, and start another one of a client's choice.
# With $name, a text that says the name itself is taken without it: a DKIM signature comes as its whole field.
sub _value {
    my ($text, $name) = @_;
    $text //= '';
    $text =~ s/\A\Q$name\E:[ \t]*//i if defined $name;
    $text =~ s/[\r\n]+\z//;
    $text =~ s/\r?\n(?![ \t])/\n\t/g;
    return $text;
}

sub _positions {
    my ($self, $tag) = @_;
    my $lines = $self->_lines;
    $tag = lc _name($tag);
    return grep { _tag($lines->[$_]) eq $tag } 0 .. $#$lines;
}

# Index 0 is the very top; no index, or any other one, the end.
sub add {
    my ($self, $tag, $text, $index) = @_;
    if (!defined $tag) { ($tag) = ($text // '') =~ /\A([^\s:]+):/ or return }
    my $name = _name($tag);
    my $value = _value($text, $name);
    my $line = "$name: $value\n";
    my $top = defined $index && $index == 0;
    splice @{$self->_lines}, $top ? 0 : scalar @{$self->_lines}, 0, $line;
    Gatepost::Changes::record(op => 'add_header', name => $name, value => $value, at => $top ? 'top' : 'bottom');
    return $line;
}

sub replace {
    my ($self, $tag, $text, $n) = @_;
    my $name = _name($tag);
    my $value = _value($text, $name);
    my $line = "$name: $value\n";
    my @at = $self->_positions($tag);
    my $at = $at[$n // 0];
    if (defined $at) { $self->_lines->[$at] = $line }
    else             { push @{$self->_lines}, $line }
    Gatepost::Changes::record(op => 'replace_header', name => $name, value => $value, nth => 1 + ($n // 0));
    return $line;
}

# Without $n all fields of that name. Returns the values removed.
sub delete {
    my ($self, $tag, $n) = @_;
    my @at = $self->_positions($tag);
    @at = grep { defined } $at[$n] if defined $n;
    return unless @at;
    Gatepost::Changes::record(
        op => 'remove_header', name => _name($tag), defined $n ? (nth => 1 + $n) : (),
    );
    my $lines = $self->_lines;
    my @removed = map { _after_tag($lines->[$_]) } @at;
    splice @$lines, $_, 1 for reverse @at;
    return @removed;
}

sub _after_tag {
    my $line = shift;
    $line =~ s/\A[^:]*:[ \t]*//;
    return $line;
}

# List: all values, or the $n-th. Scalar: the first, or the $n-th; undef if there is none.
sub get {
    my ($self, $tag, $n) = @_;
    my @at = $self->_positions($tag);
    return _after_tag($self->_lines->[$at[0]]) if !wantarray && @at && !defined $n;
    @at = grep { defined } $at[$n] if defined $n;
    my @values = map { _after_tag($self->_lines->[$_]) } @at;
    return wantarray ? @values : $values[0];
}

sub count { my @at = $_[0]->_positions($_[1]); return scalar @at }

# Distinct names in the usual case: Received, Message-Id, X-Spam-Flag.
sub tags {
    my $self = shift;
    my %seen;
    return map { join '-', map { ucfirst } split /-/, $_, -1 } grep { $_ ne '' && !$seen{$_}++ } map { _tag($_) } @{$self->_lines};
}

sub as_string { join '', @{$_[0]->_lines} }
sub header    { [@{$_[0]->_lines}] }

sub print {
    my ($self, $handle) = @_;
    return print { $handle // \*STDOUT } $self->as_string;
}

1;
