package Qpsmtpd::Address;

# A mailbox: sender, recipients, and the argument of the mail and rcpt hooks.
#
# new('<user@host>')   checked; undef if it is no address. `<>` is the null sender, `<postmaster>` needs no host
# new('user@host')     split at the last @, unchecked
# new($user, $host)
# from_wire($address)  the protocol's form: RFC 5321 section 4.1.2, without angle brackets
#
# user() is the local part without quoting, host() the domain or undef, address() both joined, '' for the null
# sender, format() the path with angle brackets and quoting. A setter returns the new value.

use strict;
use warnings;

use parent -norequire, 'Qpsmtpd::Notes';
use Qpsmtpd::Notes;
use overload '""' => \&format, 'cmp' => \&_compare, 'bool' => sub { 1 }, fallback => 1;

my $atom   = qr/[^\x00-\x20\x7f()<>\@,;:\\".\[\]]+/;
my $dots   = qr/$atom(?:\.$atom)*/;
my $quoted = qr/"(?:[^\x00-\x1f\x7f"\\]|\\[\x20-\x7e])*"/;
my $domain = qr/[^\x00-\x20\x7f()<>\@,;:\\".\[\]]+(?:\.[^\x00-\x20\x7f()<>\@,;:\\".\[\]]+)*\.?|\[[^\x00-\x20\[\]\\\x7f]*\]/;

sub new {
    my ($class, $user, $host) = @_;
    my $self = bless {}, $class;
    return $self unless defined $user;
    if ($user =~ /\A<(.*)>\z/s) {
        ($user, $host) = $class->canonify($user);
        return unless defined $user;
    }
    elsif (!defined $host) {
        ($user, $host) = _split($user);
        return $self unless defined $host;
    }
    @$self{qw(_user _host)} = ($user, $host);
    return $self;
}

sub from_wire {
    my ($class, $address) = @_;
    $address //= '';
    # The usual form in one step: this runs for every MAIL and RCPT.
    my $at = rindex $address, '@';
    return bless {_user => substr($address, 0, $at), _host => substr($address, $at + 1)}, $class
        if $at >= 0 && ord $address != ord '"';

    my ($user, $host) = _split($address);
    return bless {_user => $user, _host => $host}, $class;
}

# An address, or the one that a text means, with angle brackets or without.
sub of {
    my ($class, $address) = @_;
    return ref $address ? $address : $class->from_wire($address =~ s/\A<(.*)>\z/$1/r);
}

sub parse { $_[0]->new($_[1]) }

sub _split {
    my $address = shift;
    my ($user, $host) = $address =~ /\A(.*)\@([^\@]*)\z/s ? ($1, $2) : ($address, undef);
    return (_unquote($user), $host);
}

sub _unquote {
    my $user = shift;
    $user =~ s/\\(.)/$1/gs if $user =~ s/\A"(.*)"\z/$1/s;
    return $user;
}

# '<path>' -> (user, host), or an empty list. A source route is dropped (RFC 5321, appendix F.2).
sub canonify {
    my ($class, $path) = @_;
    $path =~ s/\A<(.*)>\z/$1/s or return;
    $path =~ s/\A\@$domain(?:,\@$domain)*://;
    return ('', undef) if $path eq '';
    return ($path, undef) if lc $path eq 'postmaster';
    my ($user, $host) = $path =~ /\A($dots|$quoted)\@($domain)\z/ or return;
    return (_unquote($user), $host);
}

sub address {
    my $self = shift;
    if (@_) {
        my $new = (ref $self)->new($_[0]);
        @$self{qw(_user _host)} = $new ? @$new{qw(_user _host)} : ();
    }
    return ($self->{_user} // '') . (defined $self->{_host} ? "\@$self->{_host}" : '');
}

# The protocol's form: like address(), with the quoting that RFC 5321 asks for.
sub to_wire {
    my $self = shift;
    my $user = $self->{_user} // '';
    return '' if $user eq '' && !defined $self->{_host};
    if ($user !~ /\A$dots\z/) {
        $user =~ s/([\\"])/\\$1/g;
        $user = qq("$user");
    }
    return $user . (defined $self->{_host} ? "\@$self->{_host}" : '');
}

sub format {
    my $self = shift;
    return '<' . (defined $self->{_user} && $self->{_user} ne '' ? $self->to_wire : '') . '>';
}

sub user {
    my $self = shift;
    $self->{_user} = shift if @_;
    return $self->{_user};
}

sub host {
    my $self = shift;
    $self->{_host} = shift if @_;
    return $self->{_host};
}

# The daemon, and the recipient's own flat files, where a hook user_config knows them.
sub qp { my $self = shift; $self->{_qp} = shift if @_; return $self->{_qp} }
sub config { my ($self, $name) = @_; require Qpsmtpd::Config; return Qpsmtpd::Config::get($name, $self) }

# By host, then by user, without regard to case; a plain text on the other side is taken as an address.
sub _compare {
    my ($left, $right, $swapped) = @_;
    my @keys = map {
        my $address = ref $_ ? $_ : __PACKAGE__->new($_ // '');
        $address ? [lc($address->host // ''), lc($address->user // '')] : [lc($_ // ''), ''];
    } $left, $right;
    my $order = $keys[0][0] cmp $keys[1][0] || $keys[0][1] cmp $keys[1][1];
    return $swapped ? -$order : $order;
}

1;
