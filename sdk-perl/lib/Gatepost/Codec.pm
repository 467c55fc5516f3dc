package Gatepost::Codec;

# Chooses how frames are decoded: Data::MessagePack's XS code where it is installed, else Gatepost::MessagePack.
# GATEPOST_CODEC=builtin in the environment forces the latter.
#
# decoder() -> (name, code reference); the code reference has the contract of Gatepost::MessagePack::decode.

use strict;
use warnings;

use Gatepost::MessagePack ();

sub decoder {
    my $wanted = shift // $ENV{GATEPOST_CODEC} // '';
    return (builtin => \&Gatepost::MessagePack::decode) if $wanted eq 'builtin' || !_xs();
    return (xs => \&decode_xs);
}

# The pure-Perl half of Data::MessagePack would be slower than our own decoder, and is not as strict.
sub _xs {
    return eval {
        local $SIG{__DIE__};
        require Data::MessagePack;
        !$INC{'Data/MessagePack/PP.pm'} && Data::MessagePack->can('unpack');
    };
}

# XS cannot be told to refuse floats, duplicate keys, keys that are not text, depth or wide integers, and it gives
# texts beyond ASCII as characters where all others are bytes. So a frame goes to it only if a few passes over its
# bytes, and over the keys of the result, show that none of these is in it; the strict decoder takes the rest. Bytes
# that merely look like one of them cost the detour. The values that nearly every hook has are taken out first, or a
# port number would send most frames that way.
my $usual = qr/(?:\xabremote_port|\xa2id|\xaalocal_port|\xabdeadline_ms|\xa4size)\xcd../s;

sub decode_xs {
    no warnings 'uninitialized';    # XS warns of a nil that is a key
    (my $shape = $_[0]) =~ s/$usual//g;
    $shape =~ s/\xacrelay_client[\xc2\xc3]//;
    goto &Gatepost::MessagePack::decode
        if $shape =~ tr/\xc1\xc7-\xcb\xcf\xd3-\xd8\xdd-\xdf//
        || $shape =~ tr/\x80-\x9f\xdc// > 16
        || $shape =~ /[\xc2-\xf4][\x80-\xbf]/;

    my $map = eval { Data::MessagePack->unpack($_[0]) };
    goto &Gatepost::MessagePack::decode unless ref $map eq 'HASH';

    $shape =~ tr/\x80-\x8f//cd;
    my $declared = unpack('%32C*', $shape) - 0x80 * length $shape;
    my ($found, $keys, @todo) = (0, "\n", $map);
    for my $item (@todo) {
        if (ref $item eq 'HASH') {
            $found += keys %$item;
            $keys .= join "\n", keys %$item, '';
            push @todo, grep { ref } values %$item;
        }
        elsif (ref $item eq 'ARRAY') {
            push @todo, grep { ref } @$item;
        }
    }
    # What XS makes of a key that is a number, nil, a boolean or a container.
    goto &Gatepost::MessagePack::decode
        if $found != $declared || $keys =~ /\n[-0-9\n]/ || $keys =~ /\(0x|\ntrue\n|\nfalse\n/;
    return $map;
}

1;
