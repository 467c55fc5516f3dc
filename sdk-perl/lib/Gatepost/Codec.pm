package Gatepost::Codec;

# Chooses how frames are decoded: Data::MessagePack's XS code where it is installed, else Gatepost::MessagePack.
# GATEPOST_CODEC=builtin in the environment forces the latter.
#
# decoder() -> (name, code reference). For a good frame the code gives what Gatepost::MessagePack::decode gives; it dies
# as that does for a broken one, though `xs` takes some that are broken.

use strict;
use warnings;

use Gatepost::MessagePack ();

sub decoder {
    my $wanted = shift // $ENV{GATEPOST_CODEC} // '';
    return (builtin => \&Gatepost::MessagePack::decode) if $wanted eq 'builtin' || !_xs();
    return (xs => \&decode_xs);
}

# The pure-Perl half of Data::MessagePack would be slower than our own decoder.
sub _xs {
    return eval {
        local $SIG{__DIE__};
        require Data::MessagePack;
        !$INC{'Data/MessagePack/PP.pm'} && Data::MessagePack->can('unpack');
    };
}

# XS refuses what a plugin process must refuse (docs/protocol.md, section 2): what is cut off, has bytes left over, is
# no map or no MessagePack. It takes floats, doubled keys and the like, none of which the core can write. The strict
# decoder knows the name of what is refused.
#
# XS gives texts beyond ASCII as characters, and booleans as objects: references to 1 or 0. Few frames have any, so the
# bytes are searched for what they would look like, and the result is walked only if something turns up; a number may
# look the same, which costs the walk and nothing else. The one boolean that many hooks have is dealt with by its name.
my $BOOLEAN = 'Data::MessagePack::Boolean';

# Long frames bring pieces of messages, mostly: the strict decoder skips them, where a search goes through every byte.
my $LONG = 16_384;

sub decode_xs {
    goto &Gatepost::MessagePack::decode if length $_[0] > $LONG;
    my $suspects = $_[0] =~ tr/\xc2\xc3\xdd\xdf//;
    # Lists and maps with room for more than 65535 items: XS takes the memory before it sees that they are not there.
    goto &Gatepost::MessagePack::decode if $suspects && $_[0] =~ tr/\xdd\xdf//;

    my $map = eval { Data::MessagePack->unpack($_[0]) };
    goto &Gatepost::MessagePack::decode unless ref $map eq 'HASH';

    if ($suspects && ref $map->{connection} eq 'HASH' && ref $map->{connection}{relay_client} eq $BOOLEAN) {
        $map->{connection}{relay_client} = ${$map->{connection}{relay_client}};
        --$suspects;
    }
    _plain($map) if $suspects || $_[0] =~ /[\xc4-\xff][\x80-\xbf]/;
    return $map;
}

# In place: characters to bytes, also in keys, and booleans to 1 and 0.
sub _plain {
    my $container = shift;
    my $is_map = ref $container eq 'HASH';
    for my $value ($is_map ? values %$container : @$container) {
        if (!ref $value)               { utf8::encode($value) if utf8::is_utf8($value) }
        elsif (ref $value eq $BOOLEAN) { $value = $$value }
        else                           { _plain($value) }
    }
    return unless $is_map && utf8::is_utf8(join '', keys %$container);
    for my $key (grep { utf8::is_utf8($_) } keys %$container) {
        my $value = delete $container->{$key};
        utf8::encode($key);
        $container->{$key} = $value;
    }
    return;
}

1;
