package Gatepost::Instances;

# Makes plugins from their files: each as `init` wants it, and other instances of it for settings in force (docs/protocol.md,
# section 4). Another instance is the file compiled once more, into a package of its own, since many a plugin keeps things in
# variables of the file; one of a Perl module is another object of its class. A bounded number of them is kept.
#
# new(source => ..., args => ...)    what a plugin has for which the core names neither
# first(\%about)                     a plugin of `init`: gives what is known of it (for Gatepost::Turns), or undef and errors as for `init_error`
# other(\%about, \%settings)         gives a key and the turns of another instance; or undef and errors. What is wrong is not kept
# known($name, \%keys)               the turns of those of a plugin's other instances with these keys that there still are

use strict;
use warnings;

use Gatepost::Changes;
use Gatepost::Copies;
use Gatepost::Loader;
use Gatepost::Needs;
use Gatepost::Outcome;
use Gatepost::Schema;
use Gatepost::Settings;
use Gatepost::Turns;
use Qpsmtpd::Constants;
use Qpsmtpd::Plugin;
use Qpsmtpd::SMTP;

# The one that was not asked for longest goes, and is made again when it is wanted.
my $MAX_OTHERS = 64;

my $key_of = Gatepost::Schema::any();

# A package's name is not used twice in a process.
my $made = 0;

sub new {
    my ($class, %default) = @_;
    return bless {default => \%default, others => {}, asked => 0, loading => Qpsmtpd::SMTP->new}, $class;
}

# The daemon object of loading. Notes of its connection are those that every connection begins with.
sub loading { $_[0]{loading} }

sub first {
    my ($self, $about) = @_;
    my @made = eval { $self->_make($about, $about->{name}) };
    return @made if @made;
    return (undef, {path => [], message => reason($@)});
}

sub reason {
    my $text = "$_[0]";
    $text =~ s/\s+\z//;
    return $text;
}

# $package is what the package is named for.
sub _make {
    my ($self, $about, $package) = @_;
    my $name = $about->{name};
    my $source = $about->{source} // $self->{default}{source} // $name;
    my @args = @{$about->{args} // []};
    @args = @{$self->{default}{args} // []} if !@args && !defined $about->{source};

    my ($class, $path) = Gatepost::Loader::is_module($source) ? Gatepost::Loader::module($source, $about->{dirs}) : ();
    $path  //= Gatepost::Loader::find($source, $about->{dirs});
    $class //= Gatepost::Loader::load($name, $path, $package);
    my $plugin = $class->new(
        _gatepost => {name => $name, package => $package, dirs => $about->{dirs} // [], number => Gatepost::Copies::next_number()},
    );
    my @declared = Gatepost::Settings::declared($plugin);
    my $given = $about->{settings} // {};
    my ($settings, @errors) = @declared ? Gatepost::Settings::check(\@declared, $given) : {%$given};
    return (undef, @errors) if @errors;

    my %pairs = @args % 2 ? () : @args;
    $plugin->{_gatepost}{settings} = $settings;
    $plugin->{_args} = {%$settings, %pairs};
    my $needs = Gatepost::Needs::of_file($path);
    my $qp = $self->{loading};
    {
        local ($Qpsmtpd::Plugin::current_qp, $Qpsmtpd::Plugin::current_hook) = ($qp, undef);
        my $register = sub { $plugin->_register($qp, @args); () };
        _note_as_written($plugin) if $needs->{as_written};
        $needs->{guarded} ? Gatepost::Turns::guard($name, " while it was loaded from $path", $register) : $register->();
    }
    delete $plugin->{_gatepost}{number} if Gatepost::Copies::is_held($plugin);
    # Most plugins replace _args in register, by their arguments and defaults.
    if (ref $plugin->{_args} eq 'HASH') {
        exists $pairs{$_} or $plugin->{_args}{$_} = $settings->{$_} for keys %$given;
    }
    return {
        guarded => $needs->{guarded}, environment => $needs->{environment}, name => $name, plugin => $plugin, declared => \@declared, reads => $needs->{notes}, fields => $needs->{fields},
        quiet => Gatepost::Outcome::quiet($name), about => $about,
    };
}

# What stands behind MAIL and RCPT was noted by qpsmtpd before anybody read it.
sub _note_as_written {
    my $plugin = shift;
    for (['mail_parse', 'envelope_from'], ['rcpt_parse', 'envelope_rcpt']) {
        my ($hook, $note) = @$_;
        $plugin->register_hook($hook => sub { $_[0]->connection->notes($note => $_[2]); return DECLINED });
    }
    return;
}

sub other {
    my ($self, $about, $settings) = @_;
    my $key = $key_of->($settings);
    my $others = $self->{others}{$about->{name}} //= {};
    if (!$others->{$key}) {
        my ($other, @errors) = $self->_other({%$about, settings => $settings});
        return (undef, @errors) unless $other;
        _forget_one($others) if keys %$others >= $MAX_OTHERS;
        $others->{$key} = $other;
    }
    $others->{$key}{asked} = ++$self->{asked};
    return ($key, $others->{$key}{turns});
}

sub _other {
    my ($self, $about) = @_;
    _unload();
    my $package = sprintf '%s/_in_force_%d', $about->{name}, ++$made;
    # What register does is nothing that the hook asked for.
    local $Gatepost::Changes::list;
    local $Qpsmtpd::hooks = {map { $_ => [@{$Qpsmtpd::hooks->{$_}}] } keys %$Qpsmtpd::hooks};
    my ($entry, @errors) = eval { $self->_make($about, $package) };
    if (!$entry) {
        @errors = ({path => [], message => reason($@)}) unless @errors;
        Gatepost::Loader::unload($package);
        return (undef, @errors);
    }
    my %other = (turns => Gatepost::Turns::of($entry), plugin => $entry->{plugin});
    # Code in there that refers to the plugin would keep it for ever.
    delete $entry->{plugin}{_gatepost}{registered};
    $entry->{plugin}{_gatepost}{guard} = bless \$package, 'Gatepost::Instances::Guard';
    return \%other;
}

sub _forget_one {
    my $others = shift;
    my ($oldest) = sort { $others->{$a}{asked} <=> $others->{$b}{asked} } keys %$others;
    delete $others->{$oldest};
    _unload();
    return;
}

# Packages that nobody has an object of any more: a session may have a copy of the plugin for longer than we have it.
my @unused;

sub _unload {
    while (defined(my $package = shift @unused)) { Gatepost::Loader::unload($package) }
    return;
}

sub Gatepost::Instances::Guard::DESTROY { push @unused, ${$_[0]}; return }

sub known {
    my ($self, $name, $keys) = @_;
    my $others = $self->{others}{$name} // {};
    return map { $_->{turns} } sort { $a->{asked} <=> $b->{asked} } grep { $_ } @$others{keys %$keys};
}

1;
