package Gatepost::MessagePack;

# The MessagePack subset of the plugin protocol, in plain Perl: a strict decoder and the primitives of a typed
# encoder. The caller names the type of every value (Gatepost::Schema), because a Perl scalar cannot: the local part
# `007` is text, whatever its flags say.
#
# decode($bytes)  -> hash reference; strings are byte strings, booleans 1 and 0, nil undef.
#                    Dies with "CODE: explanation\n"; CODE is one of the names in the broken test vectors.

use strict;
use warnings;

use Exporter 'import';
our @EXPORT_OK = qw(decode pack_text pack_bytes pack_integer pack_boolean map_head array_head);

our $MAX_DEPTH = 16;

# 2**53: beyond it a peer that keeps numbers as doubles loses digits.
our $MAX_INTEGER = 9_007_199_254_740_992;

sub pack_integer {
    my $n = int $_[0];
    return $n < 0x80        ? chr $n
         : $n < 0x100       ? pack('CC', 0xcc, $n)
         : $n < 0x10000     ? pack('Cn', 0xcd, $n)
         : $n <= 0xffffffff ? pack('CN', 0xce, $n)
         : $n <= $MAX_INTEGER ? pack('CQ>', 0xcf, $n)
         :                    die "integer_range: $n is above 2**53\n"
        if $n >= 0;
    return $n >= -0x20       ? pack('c', $n)
         : $n >= -0x80       ? pack('Cc', 0xd0, $n)
         : $n >= -0x8000     ? pack('Cs>', 0xd1, $n)
         : $n >= -0x80000000 ? pack('Cl>', 0xd2, $n)
         : $n >= -$MAX_INTEGER ? pack('Cq>', 0xd3, $n)
         :                     die "integer_range: $n is below -2**53\n";
}

sub pack_boolean { $_[0] ? "\xc3" : "\xc2" }

sub pack_bytes {
    my $bytes = $_[0];
    utf8::encode($bytes) unless utf8::downgrade($bytes, 1);
    my $n = length $bytes;
    return ($n < 0x100 ? pack('CC', 0xc4, $n) : $n < 0x10000 ? pack('Cn', 0xc5, $n) : pack('CN', 0xc6, $n)) . $bytes;
}

# Text leaves as valid UTF-8 whatever the plugin had: bytes that are UTF-8 already stay as they are (qpsmtpd plugins
# handle bytes), anything else is taken as characters. The scalar's internal flag plays no part.
sub pack_text {
    my $text = $_[0];
    if ($text =~ /[^\x00-\x7f]/) {
        if (utf8::downgrade($text, 1)) {
            my $copy = $text;
            utf8::encode($text) unless utf8::decode($copy);
        }
        else {
            utf8::encode($text);
        }
    }
    else {
        utf8::downgrade($text, 1);
    }
    my $n = length $text;
    return chr(0xa0 | $n) . $text if $n < 32;
    return ($n < 0x100 ? pack('CC', 0xd9, $n) : $n < 0x10000 ? pack('Cn', 0xda, $n) : pack('CN', 0xdb, $n)) . $text;
}

sub map_head {
    my $n = $_[0];
    return $n < 16 ? chr(0x80 | $n) : $n < 0x10000 ? pack('Cn', 0xde, $n) : pack('CN', 0xdf, $n);
}

sub array_head {
    my $n = $_[0];
    return $n < 16 ? chr(0x90 | $n) : $n < 0x10000 ? pack('Cn', 0xdc, $n) : pack('CN', 0xdd, $n);
}

# The decoder's state is in file lexicals: passing the buffer and position through every call doubles its time.
my ($in, $at, $end, $depth);
my @value;    # by first byte: sub (first byte) -> value, with $at behind that byte

sub decode {
    ($in, $at, $end, $depth) = ($_[0], 1, length $_[0], 0);
    die "empty: a frame holds one map\n" unless $end;
    my $first = ord $in;
    my $is_map = $first >= 0x80 && $first <= 0x8f || $first == 0xde || $first == 0xdf;
    die "not_a_map: the frame starts with a different type\n" unless $is_map;
    my $value = $value[$first]->($first);
    die "trailing: " . ($end - $at) . " bytes after the map\n" if $at != $end;
    return $value;
}

sub _take {
    my $n = $_[0];
    die "truncated: a value ends after the frame\n" if $n > $end - $at;
    $at += $n;
    return substr $in, $at - $n, $n;
}

# Most of what a hook carries are short texts and small integers. They are read in place, since a call costs more than
# they do. In their first byte, ^ 0xa0 leaves the length of a short text, and 32 or more of everything else. Behind the
# end vec gives 0, which is no key; a last value that is not there is seen when its map is done.
sub _array {
    my $n = $_[1] // $_[0] & 15;
    die "depth: more than $MAX_DEPTH levels\n" if ++$depth > $MAX_DEPTH;
    die "truncated: an array ends early\n" if $n > $end - $at;
    my (@items, $first, $size);
    for (1 .. $n) {
        $first = vec $in, $at++, 8;
        if (($size = $first ^ 0xa0) < 32) {
            push @items, substr $in, $at, $size;
            $at += $size;
        }
        else {
            push @items, $value[$first]->($first);
        }
    }
    --$depth;
    return \@items;
}

sub _map {
    my $n = $_[1] // $_[0] & 15;
    die "depth: more than $MAX_DEPTH levels\n" if ++$depth > $MAX_DEPTH;
    my (%map, $key, $first, $size);
    for (1 .. $n) {
        $first = vec $in, $at++, 8;
        if (($size = $first ^ 0xa0) < 32) {
            $key = substr $in, $at, $size;
            $at += $size;
        }
        else {
            die "truncated: a map ends early\n" if $at > $end;
            die "bad_key: a map key is not text\n" if $first < 0xd9 || $first > 0xdb;
            $key = $value[$first]->($first);
        }
        $first = vec $in, $at++, 8;
        if (($size = $first ^ 0xa0) < 32) {
            $map{$key} = substr $in, $at, $size;
            $at += $size;
        }
        else {
            $map{$key} = $first < 0x80 ? $first : $value[$first]->($first);
        }
    }
    die "truncated: a value ends after the frame\n" if $at > $end;
    die "duplicate_key: a key stands twice in one map\n" if keys %map != $n;
    --$depth;
    return \%map;
}

sub _wide {
    my $n = $_[0];
    die "integer_range: $n does not fit in 53 bits\n" if $n > $MAX_INTEGER || $n < -$MAX_INTEGER;
    return $n;
}

$value[$_] = sub { $_[0] }        for 0x00 .. 0x7f;
$value[$_] = \&_map   for 0x80 .. 0x8f;
$value[$_] = \&_array for 0x90 .. 0x9f;
$value[$_] = sub {
    my $n = $_[0] & 31;
    die "truncated: a text ends after the frame\n" if $n > $end - $at;
    $at += $n;
    return substr $in, $at - $n, $n;
} for 0xa0 .. 0xbf;
$value[0xc0] = sub { undef };
$value[0xc1] = sub { die "malformed: 0xc1 is not MessagePack\n" };
$value[0xc2] = sub { 0 };
$value[0xc3] = sub { 1 };
$value[$_] = sub { _take(ord _take(1)) }        for 0xc4, 0xd9;
$value[$_] = sub { _take(unpack 'n', _take(2)) } for 0xc5, 0xda;
$value[$_] = sub { _take(unpack 'N', _take(4)) } for 0xc6, 0xdb;
$value[$_] = sub { die "ext: extension types are not part of the protocol\n" } for 0xc7 .. 0xc9, 0xd4 .. 0xd8;
$value[$_] = sub { die "float: floats are not part of the protocol\n" } for 0xca, 0xcb;
$value[0xcc] = sub { ord _take(1) };
$value[0xcd] = sub { unpack 'n', _take(2) };
$value[0xce] = sub { unpack 'N', _take(4) };
$value[0xcf] = sub { _wide(unpack 'Q>', _take(8)) };
$value[0xd0] = sub { unpack 'c', _take(1) };
$value[0xd1] = sub { unpack 's>', _take(2) };
$value[0xd2] = sub { unpack 'l>', _take(4) };
$value[0xd3] = sub { _wide(unpack 'q>', _take(8)) };
$value[0xdc] = sub { _array($_[0], unpack 'n', _take(2)) };
$value[0xdd] = sub { _array($_[0], unpack 'N', _take(4)) };
$value[0xde] = sub { _map($_[0], unpack 'n', _take(2)) };
$value[0xdf] = sub { _map($_[0], unpack 'N', _take(4)) };
$value[$_] = sub { $_[0] - 256 } for 0xe0 .. 0xff;

1;
