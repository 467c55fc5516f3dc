package Qpsmtpd::Body;

# The methods of a transaction that concern the message's bytes. A base class of Qpsmtpd::Transaction.
#
# Lines are given with LF, without dot-stuffing, after the empty line that ends the header block; that line is the
# first that body_getline returns, as in qpsmtpd. From the core the body comes in pieces of 256 KiB, held no longer
# than needed. In memory (tests) it is in _body_array and _body_size.

use strict;
use warnings;

use File::Path ();
use File::Temp ();
use Gatepost::Core;

my $PIECE = 262_144;

sub _in_memory { $_[0]{_body_array} }

# Appends to a message in memory; header lines first, as qpsmtpd's own tests do. A message that the core holds cannot
# be written: its bytes stay as they were received.
sub body_write {
    my ($self, $data) = @_;
    die "body_write: the bytes of a received message cannot be changed\n"
        if !$self->{_body_array} && defined $self->{_fields}{body_start};
    for my $line (split /^/, ref $data ? $$data : $data) {
        $line =~ s/\r\n\z/\n/;
        push @{$self->{_body_array} //= []}, $line;
        $self->{_body_size} += length $line;
    }
    return;
}

sub body_resetpos {
    my $self = shift;
    $self->{_line} = $self->{_memory_start} // 0;
    $self->{_offset} = $self->{_fields}{header_end} // 0;
    $self->{_piece} = '';
    return 1;
}

sub body_getline {
    my $self = shift;
    $self->body_resetpos unless defined $self->{_line};
    return $self->{_body_array}[$self->{_line}++] if $self->_in_memory;
    while (1) {
        if ($self->{_piece} =~ /\G([^\n]*\n)/gc) {
            my $line = $1;
            $line =~ s/\r\n\z/\n/;
            return $line;
        }
        my $rest = substr $self->{_piece}, pos $self->{_piece} // 0;
        my $more = Gatepost::Core::message_read($self->{_offset}, $PIECE);
        if ($more eq '') {
            $self->{_piece} = '';
            return $rest eq '' ? undef : $rest;
        }
        $self->{_offset} += length $more;
        $self->{_piece} = $rest . $more;
    }
}

# Bytes as received (CRLF counted as two), header included; 0 before the message is complete.
sub data_size   { $_[0]->_in_memory ? $_[0]{_body_size} : $_[0]{_fields}{size} // 0 }
sub body_size   { $_[0]->data_size }
sub body_length { $_[0]->data_size - $_[0]->body_start }
sub body_start  { $_[0]->_in_memory ? 0 : $_[0]{_fields}{body_start} // 0 }

sub body_as_string {
    my $self = shift;
    $self->body_resetpos;
    my $all = '';
    while (defined(my $line = $self->body_getline)) { $all .= $line }
    return $all;
}

# A copy of the message as received, with LF line ends, for scanners; gone with the transaction. A copy, since the
# core's own file is promised not to change, and asking for its path would put every message on disk. Who may enter the folder may
# read it: some plugins see to that themselves, others leave it to qpsmtpd's umask.
sub body_filename {
    my $self = shift;
    return "$self->{_file}" if $self->{_file};
    my $dir  = $self->spool_dir;
    my $file = File::Temp->new(TEMPLATE => 'message-XXXXXXXX', DIR => $dir, UNLINK => 1);
    binmode $file;
    if ($self->_in_memory) {
        print {$file} @{$self->{_body_array}};
    }
    else {
        my ($offset, $carry) = (0, '');
        while ((my $piece = Gatepost::Core::message_read($offset, $PIECE)) ne '') {
            $offset += length $piece;
            $piece = $carry . $piece;
            $carry = $piece =~ s/\r\z// ? "\r" : '';
            $piece =~ s/\r\n/\n/g;
            print {$file} $piece;
        }
        print {$file} $carry;
    }
    $file->flush or die "$file: $!\n";
    my $folder = (stat $dir)[2];
    chmod 0600 | ($folder & 0010 ? 0040 : 0) | ($folder & 0001 ? 0004 : 0), "$file" or die "$file: $!\n";
    $self->{_file} = $file;
    return "$file";
}

# Files and folders that plugins made for this transaction. A child process of a plugin must not take them away.
sub remove_later {
    my ($self, $path) = @_;
    push @{$self->{_remove_later}{$$}}, $path;
    return;
}

sub DESTROY {
    my $self = shift;
    return if ${^GLOBAL_PHASE} eq 'DESTRUCT';
    local ($@, $!, $?);
    for my $path (@{($self->{_remove_later} // return)->{$$} // []}) {
        -d $path && !-l $path ? File::Path::remove_tree($path) : unlink $path;
    }
    return;
}

sub body_spool { $_[0]->body_filename; return }

# Where body_getline goes on, counted as data_size counts: lines in memory, else bytes.
sub body_current_pos {
    my $self = shift;
    $self->body_resetpos unless defined $self->{_line};
    return $self->_in_memory ? $self->{_line} : $self->{_offset} - length(substr $self->{_piece}, pos $self->{_piece} // 0);
}

# In memory the header ends at the line that comes next.
sub set_body_start { my $self = shift; $self->{_memory_start} = $self->{_line} // scalar @{$self->{_body_array} // []}; return }

sub dup_body_fh { $_[0]->body_fh }

sub body_fh {
    my $self = shift;
    open my $handle, '<', $self->body_filename or die "$self->{_file}: $!\n";
    return $handle;
}

1;
