package Qpsmtpd;

# What daemon and transaction have in common, as qpsmtpd has it: configuration, hooks, plugins, folders, log. A base class of
# Qpsmtpd::SMTP ($self->qp) and Qpsmtpd::Transaction.
#
# Two backends are behind it. With a core ($Gatepost::Core::backend: the wire, or a test's) it answers; without one all is in
# memory and on disk, as in qpsmtpd's own tests: configuration is found by Qpsmtpd::Config, plugins are loaded by load_plugins, hooks
# run by run_hooks (Gatepost::Chain), the log is standard error.

use strict;
use warnings;

use Gatepost;
use Gatepost::Chain;
use Gatepost::Core;
use Gatepost::Log;
use Qpsmtpd::Base;
use Qpsmtpd::Config;
use Qpsmtpd::Constants;

use parent -norequire, 'Qpsmtpd::Base', 'Gatepost::Chain';

our $VERSION = $Gatepost::VERSION;

# Hook name -> list of {name, code} in the order of the chain; code takes ($qp, $transaction, @arguments).
our $hooks = {};

# Messages above this are files in qpsmtpd; here bodies are wherever the core has them.
our $Size_threshold = 10_000;

sub version        { $VERSION }
sub size_threshold { $Size_threshold }

# All hooks, or the list of one.
sub hooks {
    my ($self, $hook) = @_;
    return $hooks unless defined $hook;
    return @{$hooks->{$hook} // []};
}

# List: the lines of the flat file; scalar: its first. With 'map' a reference to a hash of its lines; with an address that
# recipient's own, where a hook user_config knows them.
sub config { shift; return Qpsmtpd::Config::get(@_) }

sub config_dir  { $_[0] = 'Qpsmtpd::Config'; goto &Qpsmtpd::Config::config_dir }
sub plugin_dirs { my @dirs = $_[0]->config('plugin_dirs'); return @dirs ? @dirs : Qpsmtpd::Config::home() . '/plugins' }

sub log {
    my ($self, $level, @message) = @_;
    return $self->varlog($level, undef, undef, @message);
}

# ($level, $hook, $plugin, @message), or with fewer in front.
sub varlog {
    my ($self, $level, @rest) = @_;
    my ($hook, $plugin) = @rest > 1 ? splice @rest, 0, 2 : ();
    Gatepost::Log::line($plugin, $level, join ' ', grep { defined } @rest);
    return;
}

sub address {
    my ($self, $text) = @_;
    require Qpsmtpd::Address;
    my $address = Qpsmtpd::Address->new($text);
    $address->qp($self) if $address;
    return $address;
}

# A folder for files of this process, with a slash at its end: the core's, which is gone with the process, else the flat file
# spool_dir's, else one below /tmp. Others may enter it as far as the flat file spool_perms says.
sub spool_dir {
    my $self = shift;
    my $dir = $Gatepost::Core::about{scratch_dir};
    if (defined $dir) {
        _let_others_in($dir);
    }
    else {
        ($dir) = Qpsmtpd::Config::get('spool_dir');
        $dir = defined $dir ? Qpsmtpd::Base->tildeexp($dir =~ s{/+\z}{}r) : _own_scratch();
        if (!-d $dir) {
            mkdir $dir, 0700 or die "spool_dir: cannot make $dir: $!\n";
            _let_others_in($dir);
        }
    }
    return "$dir/";
}

my %let_in;

# Once for each folder. A group that the folder has from the one above, by its setgid bit, is kept: it may be the scanner's.
sub _let_others_in {
    my $dir = shift;
    return if $let_in{$dir}++;
    my $mode = _spool_perms() | ((stat $dir)[2] // 0) & 02000;
    chmod $mode, $dir or die "spool_perms: cannot change $dir: $!\n";
    return;
}

sub _spool_perms {
    my $perms = Qpsmtpd::Config::get('spool_perms') // '0700';
    return 0700 | oct $perms if $perms =~ /\A[0-7]{3,5}\z/;
    Gatepost::Log::line(undef, LOGERROR, "spool_perms: $perms is no mode such as 0750; 0700 is taken");
    return 0700;
}

my $own_scratch;

sub _own_scratch {
    require File::Temp;
    $own_scratch //= File::Temp->newdir('gatepost-XXXXXXXX', TMPDIR => 1);
    return "$own_scratch";
}

my $serial = 0;

# A path that is free; what is made there goes with the transaction.
sub temp_file {
    my $self = shift;
    my $name = sprintf '%s%d:%d:%d', $self->spool_dir, time, $$, $serial++;
    my $owner = $self->can('remove_later') ? $self : $self->transaction;
    $owner->remove_later($name);
    return $name;
}

# With the mask that was asked for, 0700 unless said; qpsmtpd takes that for a decimal number.
sub temp_dir {
    my ($self, $mask) = @_;
    my $name = $self->temp_file;
    mkdir $name, $mask // 0700 or die "$name: $!\n";
    return $name;
}

1;
